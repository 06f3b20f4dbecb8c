"""`edge-medgemma clinic add`: scans from a folder, archive or stick."""

from collections.abc import Mapping
from pathlib import Path

import click

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import settings_option, state_option


@click.command(epilog="Example: edge-medgemma clinic add /media/stick")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH..."
)
@click.option(
    "--and-wait", is_flag=True, help="Wait until the engine has looked, and print the urgency."
)
@state_option
@settings_option
def command(
    paths: tuple[Path, ...], and_wait: bool, state: StateFolder, settings_file: Path | None
) -> None:
    """Take the scans of folders, DICOM files and archives (zip, tar, tar.gz) into the worklist.

    Files are copied, one by one and each as a whole, also while the clinic runs. What is there already
    is not taken twice.
    """
    from edge_medgemma.runtime.clinic.arrivals.file_intake import FOLDER, check_paths, take_paths
    from edge_medgemma.runtime.clinic.arrivals.intake import Intake
    from edge_medgemma.runtime.clinic.settings import read_settings
    from edge_medgemma.runtime.commands.clinic.taken import print_taken, wait_for_looks
    from edge_medgemma.runtime.commands.progress import progress_bar
    from edge_medgemma.runtime.errors import ScanError

    settings = read_settings(settings_file)
    check_paths(paths)
    with progress_bar("taking files") as on_progress, Intake(state, settings, FOLDER) as intake:
        skipped = take_paths(intake, paths, on_progress)
    print_taken(intake.studies)
    _print_skipped(skipped.reasons)
    if not any(study.images for study in intake.studies.values()):
        raise ScanError("no scan was taken: there is no DICOM image in what was named")
    if and_wait:
        wait_for_looks(state, intake.studies)


def _print_skipped(reasons: Mapping[str, int]) -> None:
    from edge_medgemma.runtime.reporting.labels import count

    for reason, number in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        click.echo(f"skipped  {count(number, 'file')}: {reason}")
