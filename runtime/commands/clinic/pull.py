"""`edge-medgemma clinic pull`: a study from an archive into the worklist."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from edge_medgemma.runtime.clinic.arrivals.pull import (
    PULL,
    Match,
    Pulled,
    Way,
    find_matches,
    pull_study,
)
from edge_medgemma.runtime.clinic.arrivals.query import StudyQuestion
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Peer
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import settings_option, state_option


@click.command(epilog="Example: edge-medgemma clinic pull archive --accession")
@click.argument("peer_name", metavar="PEER")
@click.option("--study", "study_uid", default="", metavar="UID", help="Study Instance UID.")
@click.option(
    "--accession",
    "by_accession",
    is_flag=True,
    help="Ask for an accession number, or read it from standard input: it stands neither in the "
    "shell's history nor in the list of processes.",
)
@click.option(
    "--patient",
    "by_patient",
    is_flag=True,
    help="Ask for a patient number in the same way; after the accession number if both are given.",
)
@click.option(
    "--date", default="", metavar="DATE", help="YYYYMMDD, a range YYYYMMDD-YYYYMMDD, or today."
)  # fmt: skip
@click.option(
    "--modality", default="", metavar="CT|MR|...", help="Only studies with this modality."
)
@click.option("--yes", "is_sure", is_flag=True, help="Pull all that match without asking.")
@click.option(
    "--way",
    "ways",
    multiple=True,
    type=click.Choice([way.value for way in Way]),
    help="How images are retrieved; may be repeated, in order.  [default: get, move, web]",
)
@click.option(
    "--and-wait", is_flag=True, help="Wait until the engine has looked, and print the urgency."
)
@state_option
@settings_option
def command(
    peer_name: str,
    study_uid: str,
    by_accession: bool,
    by_patient: bool,
    date: str,
    modality: str,
    is_sure: bool,
    ways: tuple[str, ...],
    and_wait: bool,
    state: StateFolder,
    settings_file: Path | None,
) -> None:
    """Get studies from the archive PEER of the settings into the worklist.

    Lists what matches, without names, and asks which to pull. What is here already is not taken twice:
    after a pull that broke off, the same command gets the rest.
    """
    from edge_medgemma.runtime.clinic.settings import read_settings
    from edge_medgemma.runtime.commands.clinic.taken import wait_for_looks
    from edge_medgemma.runtime.errors import PeerError, ScanError

    settings = read_settings(settings_file)
    peer = _peer(settings, peer_name)
    question = StudyQuestion(
        study_uid=study_uid.strip(),
        accession=_secret("accession number") if by_accession else "",
        patient_id=_secret("patient number") if by_patient else "",
        date=_date(date),
        modality=modality.strip().upper(),
    )
    matches = find_matches(state, settings, peer, question)
    if not matches:
        raise ScanError(f"'{peer_name}' has no study with images that matches")
    chosen = _choose(matches, is_sure=is_sure)
    chosen_ways = tuple(map(Way, ways)) or tuple(Way)
    missing = [
        number
        for number, match in chosen
        if not _pull(state, settings, peer, match, chosen_ways, number).is_whole
    ]
    if missing:
        raise PeerError(
            f"not all images came of {len(missing)} of {len(chosen)} studies; what came is in the "
            "worklist and called incomplete: pull again for the rest"
        )
    if and_wait:
        wait_for_looks(state, [state.study_key(match.study.study_uid) for _, match in chosen])


def _peer(settings: ClinicSettings, name: str) -> Peer:
    from edge_medgemma.runtime.errors import SettingsError

    for peer in settings.peers:
        if peer.name == name:
            return peer
    known = ", ".join(peer.name for peer in settings.peers) or "none"
    raise SettingsError(f"no peer of the settings is called '{name}'; there are: {known}")


def _secret(what: str) -> str:
    """A number that says whose scan it is, from the person at the terminal or a pipe."""
    from edge_medgemma.runtime.errors import ScanError

    is_person = sys.stdin.isatty()
    text = str(click.prompt(what, err=True) if is_person else sys.stdin.readline()).strip()
    if not text:
        raise ScanError(f"no {what} was given; type it, or send it to standard input as one line")
    return text


def _date(text: str) -> str:
    """As DICOM wants it.

    Raises:
        ScanError: no date.
    """
    import re
    from datetime import date

    from edge_medgemma.runtime.errors import ScanError

    if text.strip().lower() == "today":
        return date.today().strftime("%Y%m%d")
    words = text.replace(" ", "")
    if words and not re.fullmatch(r"[0-9]{8}|[0-9]{8}-|-[0-9]{8}|[0-9]{8}-[0-9]{8}", words):
        raise ScanError("a date is YYYYMMDD, a range YYYYMMDD-YYYYMMDD, or 'today'")
    return words


def _choose(matches: Sequence[Match], *, is_sure: bool) -> list[tuple[int, Match]]:
    """What the person wants of what matches, with the numbers of the list."""
    from edge_medgemma.runtime.errors import ScanError

    numbered = list(enumerate(matches, start=1))
    for number, match in numbered:
        click.echo(_line(number, match))
    if is_sure:
        return numbered
    if not sys.stdin.isatty():
        raise ScanError("nobody is here to choose; add --yes to pull all that match")
    words = click.prompt("pull which? numbers with blanks between, or 'all'", err=True)
    if words.strip().lower() == "all":
        return numbered
    wanted = words.replace(",", " ").split()
    chosen = [(number, match) for number, match in numbered if str(number) in wanted]
    if len(chosen) != len(set(wanted)):
        raise ScanError("choose numbers of the list, or 'all'; nothing was pulled")
    return chosen


def _line(number: int, match: Match) -> str:
    from edge_medgemma.runtime.commands.sanitize import printable
    from edge_medgemma.runtime.reporting.labels import count

    date, time = match.study.date, match.study.time
    day = f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 else "date unknown"
    clock = f" {time[:2]}:{time[2:4]}" if len(time) >= 4 else ""
    modalities = "/".join(dict.fromkeys(one.modality for one in match.series))
    parts = "/".join(dict.fromkeys(one.body_part for one in match.series if one.body_part))
    images = "images not counted" if match.images is None else count(match.images, "image")
    words = [f"{number:3}", day + clock, modalities, parts, count(len(match.series), "series")]
    return printable("  ".join(word for word in [*words, images] if word))


def _pull(
    state: StateFolder,
    settings: ClinicSettings,
    peer: Peer,
    match: Match,
    ways: Sequence[Way],
    number: int,
) -> Pulled:
    from edge_medgemma.runtime.clinic.arrivals.intake import Intake
    from edge_medgemma.runtime.commands.clinic.taken import SHOWN_KEY_LETTERS
    from edge_medgemma.runtime.commands.progress import progress_bar

    total = match.images or 0
    with (
        progress_bar(f"pulling {number}") as on_progress,
        Intake(state, settings, PULL) as intake,
    ):
        pulled = pull_study(
            intake, peer, match, ways, lambda images: on_progress(images, max(total, images))
        )
    key = state.study_key(match.study.study_uid)
    of = "" if pulled.expected is None else f" of {pulled.expected}"
    click.echo(f"study {key[:SHOWN_KEY_LETTERS]}  {pulled.images}{of} images")
    if not pulled.is_whole:
        for problem in pulled.problems:
            click.echo(f"  {problem}", err=True)
    return pulled
