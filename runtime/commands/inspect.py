"""`edge-medgemma inspect`: the volumes of a scan, and the files that were skipped and why."""

from dataclasses import dataclass
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from edge_medgemma.runtime.commands.options import modality_option
from edge_medgemma.runtime.commands.progress import progress_bar
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.documents import Count, Finite, dump_json
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.slicing.choose import series_keys
from edge_medgemma.runtime.slicing.contact_sheet import contact_sheet_png
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, measure_range, read_volume
from edge_medgemma.runtime.slicing.volume import (
    BodyPart,
    Modality,
    Problem,
    Series,
    SkippedFile,
    SliceStack,
)
from edge_medgemma.runtime.slicing.windows import render_stack


@dataclass(frozen=True, slots=True)
class VolumeListing:
    """A volume as `inspect --json` prints it."""

    key: str
    """Key of the series, as `--series` of the other commands takes it."""
    series_uid: str
    modality: Modality
    body_parts: tuple[BodyPart, ...]
    """Those that the header names."""
    shape: tuple[Count, Count, Count]
    """Slices, rows, columns."""
    spacing_mm: tuple[Finite, Finite, Finite]
    """Between slices (median), rows, columns."""
    orientation: str
    range: tuple[Finite, Finite] | None
    """Lowest and highest value after rescale; null: undecodable."""
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class ScanListing:
    """Output of `inspect --json`."""

    volumes: tuple[VolumeListing, ...]
    skipped: tuple[SkippedFile, ...]


@dataclass(frozen=True, slots=True)
class InspectedVolume:
    """A series, and what decoding all of it showed."""

    key: str
    """Key of the series, as `--series` of the other commands takes it."""
    series: Series
    value_range: tuple[float, float] | None
    """Lowest and highest value after rescale, padding of a CT taken as air; None: undecodable."""
    problems: tuple[Problem, ...]


@click.command(epilog="Example: edge-medgemma inspect scan/ --contact-sheet slices.png")
@click.argument("scan", type=click.Path(path_type=Path))
@modality_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option(
    "--contact-sheet",
    "sheet_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PNG",
    help="Write an image of the slices exactly as the model gets them.",
)
def command(scan: Path, modality: Modality | None, as_json: bool, sheet_path: Path | None) -> None:
    """List every volume in a scan and every file skipped.

    SCAN is a folder of DICOM or NIfTI files, one such file, or a zip or tar of them. Every slice is
    decoded: the range is lowest to highest value after rescale (Hounsfield units for CT, with
    padding as air).
    """
    with progress_bar("reading headers") as on_files:
        listing = find_series(scan, on_files, modality)
    volumes = []
    keys = series_keys(listing.series)
    for number, (key, series) in enumerate(zip(keys, listing.series, strict=True), start=1):
        with progress_bar(f"decoding series {number} of {len(keys)}") as on_slices:
            volumes.append(InspectedVolume(key, series, *measure_range(series, on_slices)))
    if sheet_path is not None:
        write_atomically(sheet_path, contact_sheet_png(_stacks(volumes)))
    if as_json:
        click.echo(dump_json(_listing(volumes, listing.skipped)), nl=False)
    else:
        _print_tables(volumes, listing.skipped)
    if sheet_path is not None:
        click.echo(f"contact sheet: {sheet_path}", err=as_json)


def _stacks(volumes: list[InspectedVolume]) -> list[SliceStack]:
    """The slices that triage would show the model, of every volume that can be shown.

    Raises:
        ScanError: none can be shown; the reason is the last one's.
    """
    stacks, refusal = [], ScanError("no volume can be shown")
    for volume in volumes:
        series = volume.series
        try:
            stacks.append(render_stack(read_volume(series, sample_slices(series.shape[0]))))
        except ScanError as error:
            refusal = error
    if not stacks:
        raise refusal
    return stacks


def _listing(volumes: list[InspectedVolume], skipped: tuple[SkippedFile, ...]) -> ScanListing:
    listed = []
    for volume in volumes:
        series = volume.series
        slice_mm, row_mm, column_mm = (round(spacing, 6) for spacing in series.spacing_mm)
        listed.append(
            VolumeListing(
                volume.key,
                series.series_uid,
                series.modality,
                series.body_parts,
                series.shape,
                (slice_mm, row_mm, column_mm),
                series.orientation,
                volume.value_range,
                volume.problems,
            )
        )
    return ScanListing(tuple(listed), skipped)


def _print_tables(volumes: list[InspectedVolume], skipped: tuple[SkippedFile, ...]) -> None:
    table = Table(box=SIMPLE_HEAD, title="Volumes", title_justify="left")
    for heading in ("", "kind", "shape", "spacing mm", "range"):
        table.add_column(heading, no_wrap=True)
    for number, volume in enumerate(volumes, start=1):
        series, low_high = volume.series, volume.value_range
        table.add_row(
            str(number),
            f"{series.modality} {series.orientation}, {' and '.join(series.body_parts)}",
            " × ".join(map(str, series.shape)),
            " × ".join(f"{spacing:.3f}" for spacing in series.spacing_mm),
            f"{low_high[0]:g} … {low_high[1]:g}" if low_high else "not decodable",
        )
    print_table(table)
    for number, volume in enumerate(volumes, start=1):
        click.echo(f"{number}  series {volume.key}")
        for problem in volume.problems:
            click.echo(f"   {problem.name}: {problem.detail}")
    if skipped:
        skips = Table(box=SIMPLE_HEAD, title="Skipped", title_justify="left")
        skips.add_column("file", overflow="fold")
        skips.add_column("reason", overflow="fold")
        for file in skipped:
            skips.add_row(Text(file.path), Text(file.reason))
        print_table(skips)
