"""`edge-medgemma cache`: files that earlier runs left on disk for later ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from rich.table import Column, Table

from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.documents import Size, dump_json
from edge_medgemma.runtime.reporting.labels import count
from edge_medgemma.runtime.store.entries import cache_entries, delete_unused
from edge_medgemma.runtime.store.places import Place, cache_folder, device_folder

DAY_S = 86_400.0

DEVICES = "devices"
"""Kind of the files in ENGINE/devices, which no place of the user's cache holds."""


@dataclass(frozen=True, slots=True)
class CachePlace:
    """A folder and the size of what is in it."""

    kind: str
    path: str
    files: Size
    bytes: Size
    unused_s: Size | None
    """Seconds since a file of it was written or, in the scan cache, read; null: it has no file."""


@dataclass(frozen=True, slots=True)
class CacheListing:
    """Output of `cache list --json`."""

    folder: str
    """The user's cache folder."""
    bytes: Size
    places: tuple[CachePlace, ...]


engine_option = click.option(
    "--engine", "engine_directory", type=click.Path(path_type=Path), metavar="DIR",
    help=f"Also DIR/{DEVICES}: TensorRT plans of that engine.",
)  # fmt: skip


@click.group(epilog="Example: edge-medgemma cache clear --what scans --older-than 7")
def command() -> None:
    """List or delete files that make later runs quick.

    \b
    scans              image features and prefixes of 'triage' and 'ask'
    blank-baselines    log-odds of the findings on blank slices
    self-tests         results of self-tests of libraries and devices
    trials             whether instructions that this processor claims work
    checked-engines    hashes of large engines that were found intact
    synthetic-engines  engines made by 'benchmark --synthetic'
    benchmarks         leftovers of benchmarks that were killed

    No name, path or text of a scan is in them, but scans are derived from its pixels: treat them as
    you treat the scan. Only you can read them.
    """


@command.command("list", epilog="Example: edge-medgemma cache list")
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_places(engine_directory: Path | None, as_json: bool) -> None:
    """Print kind, path, number of files, size and age of what is cached."""
    places = tuple(_measure(kind, path) for kind, path in _folders(engine_directory).items())
    total = sum(place.bytes for place in places)
    if as_json:
        click.echo(dump_json(CacheListing(str(cache_folder()), total, places)), nl=False)
        return
    table = Table("kind", Column("path", overflow="fold"), "files", "size", "last used")
    for place in places:
        last_used = "" if place.unused_s is None else age(place.unused_s)
        table.add_row(place.kind, place.path, str(place.files), megabytes(place.bytes), last_used)
    files = sum(place.files for place in places)
    print_table(table, f"{count(files, 'file')}, {megabytes(total)} in all")


@command.command(epilog="Example: edge-medgemma cache clear --what scans --older-than 7")
@engine_option
@click.option(
    "--what", "kinds", multiple=True, type=click.Choice([*(place.value for place in Place), DEVICES]), metavar="KIND",
    help="Only this kind; may be repeated.  [default: every kind]",
)  # fmt: skip
@click.option(
    "--older-than", "days", type=click.FloatRange(min=0), default=0.0, metavar="DAYS",
    help="Only what was not used for so many days.  [default: everything]",
)  # fmt: skip
def clear(engine_directory: Path | None, kinds: tuple[str, ...], days: float) -> None:
    """Delete what is cached; later runs make it again.

    What another run is writing stays.
    """
    folders = _folders(engine_directory)
    if DEVICES in kinds and DEVICES not in folders:
        raise click.UsageError(f"--what {DEVICES} needs --engine DIR: whose files?")
    deleted = [
        entry
        for kind, folder in folders.items()
        if not kinds or kind in kinds
        for entry in delete_unused(cache_entries(folder), days * DAY_S)
    ]
    files = count(sum(entry.num_files for entry in deleted), "file")
    click.echo(f"{files} deleted, {megabytes(sum(entry.bytes for entry in deleted))} freed")


def megabytes(size: int) -> str:
    """Bytes as `1.3 MB`, `4,000.0 MB`."""
    return f"{size / 1e6:,.1f} MB"


def age(seconds: float) -> str:
    """The largest whole unit: `12 s ago`, `3 min ago`, `5 h ago`, `2 d ago`."""
    for unit, unit_s in (("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit} ago"
    return f"{int(seconds)} s ago"


def _folders(engine_directory: Path | None) -> Mapping[str, Path]:
    """Folder of each kind."""
    folders = {place.value: place.folder for place in Place}
    if engine_directory is not None:
        folders[DEVICES] = device_folder(engine_directory)
    return folders


def _measure(kind: str, path: Path) -> CachePlace:
    entries = cache_entries(path)
    return CachePlace(
        kind,
        str(path),
        sum(entry.num_files for entry in entries),
        sum(entry.bytes for entry in entries),
        int(entries[-1].unused_s) if entries else None,
    )
