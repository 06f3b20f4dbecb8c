"""The engine, the languages, and what a PDF needs."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from edge_medgemma.runtime.clinic.checks.line import CheckLine, fail, ok, warn
from edge_medgemma.runtime.clinic.settings import ClinicSettings, ResultKind
from edge_medgemma.runtime.errors import DependencyError, EngineError
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.reporting.pdf_report import check_pdf
from edge_medgemma.runtime.reporting.translation import Translation, languages
from edge_medgemma.runtime.triage.scoring.grounds import check_real_engine, scope_words

_SCRIPT_SAMPLES = {"ar": "arabic", "hi": "devanagari"}
"""Languages whose script not every machine has a font for."""


def check_engine(settings: ClinicSettings) -> CheckLine:
    """Whether there is an engine, whether it may speak about patients, and about what."""
    name, directory = "engine", settings.engine.directory
    advice = "name the folder of a MedGemma engine: directory under [engine] in the settings"
    if directory is None:
        if settings.site.demonstration:
            return warn(name, "the demo engine, which knows nothing of patients", advice)
        return fail(name, "no engine: scans are received and not looked at", advice)
    try:
        manifest = load_manifest(Path(directory))
    except EngineError as error:
        return fail(name, str(error), advice)
    about = (
        f"for {scope_words(manifest.scope)} alone" if manifest.scope else "for any CT, MR or X-ray"
    )
    try:
        check_real_engine(manifest)
    except EngineError as error:
        judge = warn if settings.site.demonstration else fail
        return judge(name, str(error), advice)
    return ok(name, f"'{manifest.source.name}', {about}")


def check_languages(settings: ClinicSettings) -> Iterator[CheckLine]:
    """Whether the site's language is there, and which were read by a clinician."""
    there = languages()
    if settings.site.language not in there:
        yield fail(
            "language", f"'{settings.site.language}' is not installed: pages are English",
            f"choose one of {', '.join(there)} under [site] in the settings",
        )  # fmt: skip
    unread = [tag for tag in there if not Translation(tag).is_reviewed]
    if unread:
        yield warn(
            "languages", f"no clinician has read the words of {', '.join(unread)}",
            "pages in them say so and show the English beside; have a clinician read them",
        )  # fmt: skip
    else:
        yield ok("languages", ", ".join(there))


def check_printing(settings: ClinicSettings) -> Iterator[CheckLine]:
    """Whether a PDF can be made, and has letters of the installed languages."""
    try:
        check_pdf()
    except DependencyError as error:
        is_needed = any(ResultKind.PDF in peer.results for peer in settings.peers)
        advice = "sudo apt install libpango-1.0-0 libpangoft2-1.0-0, and the extra 'pdf'"
        yield (fail if is_needed else warn)("pdf", str(error), advice)
        return
    yield ok("pdf", "PDFs can be made")
    for tag, script in _SCRIPT_SAMPLES.items():
        if tag in languages() and not _has_font(tag):
            yield warn(
                f"font_{tag}", f"no font for {script} letters: they print as boxes",
                "sudo apt install fonts-noto-core",
            )  # fmt: skip


def _has_font(tag: str) -> bool:
    """Whether fontconfig knows a font of a language; True where nothing can be known."""
    program = shutil.which("fc-list")
    if program is None:
        return True
    command = [program, f":lang={tag}", "family"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return listed.returncode != 0 or bool(listed.stdout.strip())
