"""Key slices as a picture with the band of the urgency, for viewers that show nothing but pictures."""

import textwrap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from edge_medgemma.runtime.clinic.delivery.content import DEMONSTRATION, Told
from edge_medgemma.runtime.clinic.delivery.equipment import (
    MODEL,
    contributing_equipment,
    created,
    serial_number,
    software_versions,
)
from edge_medgemma.runtime.clinic.delivery.source import SourceStudy
from edge_medgemma.runtime.clinic.maker import MANUFACTURER
from edge_medgemma.runtime.reporting.labels import sentence
from edge_medgemma.runtime.slicing.silence import silenced
from edge_medgemma.runtime.triage.report import KeyImage, StudyReport
from edge_medgemma.runtime.triage.urgency import Urgency

SERIES_NUMBER = 9001
"""The first of ours, so that a viewer that opens the last series by number still has it near."""

WIDTH = 1024
TILE = 320
GAP = 16
CAPTION = 64
MAX_TILES = 6

_Colour = tuple[int, int, int]
_BLACK: _Colour = (12, 13, 15)
_WHITE: _Colour = (255, 255, 255)
_GREY: _Colour = (178, 184, 192)
_MARK: _Colour = (255, 226, 122)
_BANDS: dict[Urgency, tuple[_Colour, _Colour]] = {
    Urgency.CRITICAL: ((179, 32, 27), _WHITE),
    Urgency.URGENT: ((233, 161, 21), (34, 23, 0)),
    Urgency.NOT_ASSESSABLE: ((61, 68, 77), _WHITE),
    Urgency.ROUTINE: ((217, 221, 226), (22, 25, 29)),
}
"""Ground and ink, as on the report."""

NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS: AI triage, an aid to prioritisation. View the full study."


def secondary_capture(
    told: Told,
    study: StudyReport,
    source: SourceStudy,
    *,
    sop_instance_uid: str,
    series_uid: str,
    instance_number: int,
) -> Dataset:
    """A Secondary Capture of one protocol's key slices: RGB, uncompressed, so that any viewer shows it.

    Args:
        told: the result
        study: the protocol's part of its report
        source: the study
        sop_instance_uid: of the picture
        series_uid: of the series of all pictures of the result
        instance_number: of the picture, from 1
    """
    from highdicom.sc import SCImage

    at = created(told.report)
    with silenced("highdicom"), silenced("highdicom.base"):  # both quote names of patients
        picture = SCImage.from_ref_dataset(
            source.identity,
            pixel_array=draw(told, study),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            series_instance_uid=series_uid,
            series_number=SERIES_NUMBER,
            sop_instance_uid=sop_instance_uid,
            instance_number=instance_number,
            manufacturer=MANUFACTURER,
            patient_orientation=("L", "P"),  # one must be given; several slices have none
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            contributing_equipment=contributing_equipment(told.report),
            manufacturer_model_name=MODEL,
            series_description=told.series_description,
            device_serial_number=serial_number(told.report),
            software_versions=software_versions(told.report),
            content_date=at.date(),
            content_time=at.time(),
        )
    picture.BurnedInAnnotation = "YES"
    picture.Laterality = picture.PatientOrientation = ""
    picture.DateOfSecondaryCapture = at.strftime("%Y%m%d")
    picture.TimeOfSecondaryCapture = at.strftime("%H%M%S")
    return picture


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    size: int
    colour: _Colour


def draw(told: Told, study: StudyReport) -> NDArray[np.uint8]:
    """[rows, 1024, 3] RGB: band, key slices with their words, and what it is not."""
    ground, ink = _BANDS[told.urgency]
    band = _band_lines(told, ink)
    band_height = 2 * GAP + sum(_height(line) for line in band)
    shown = study.key_images[:MAX_TILES]
    rows = -(-len(shown) // 3)
    tile_height = max((_scaled(image)[1] for image in shown), default=0)
    grid_height = rows * (tile_height + CAPTION + GAP)
    foot = _foot_lines(told, study)
    height = band_height + GAP + grid_height + sum(map(_height, foot)) + 2 * GAP
    canvas = Image.new("RGB", (WIDTH, height + height % 2), _BLACK)
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, 0, WIDTH, band_height), fill=ground)
    _write(pen, GAP, GAP, band)
    for index, image in enumerate(shown):
        left = GAP + (index % 3) * (TILE + GAP)
        top = band_height + GAP + (index // 3) * (tile_height + CAPTION + GAP)
        _tile(canvas, pen, (left, top, tile_height), image, study)
    _write(pen, GAP, band_height + GAP + grid_height + GAP // 2, foot)
    return np.asarray(canvas, dtype=np.uint8)


def _band_lines(told: Told, ink: _Colour) -> list[_Line]:
    lines = [_Line(DEMONSTRATION, 22, ink)] if told.is_demonstration else []
    lines += _wrapped(told.headline, 38, ink)
    titles = [
        one.title + (" (earlier look)" if one.is_of_earlier_look else "") for one in told.findings
    ]
    if titles:
        lines += _wrapped(f"Possible: {', '.join(dict.fromkeys(titles))}", 24, ink)
    if told.limitations:
        lines += _wrapped(sentence("; ".join(told.limitations)), 19, ink)
    return lines


def _foot_lines(told: Told, study: StudyReport) -> list[_Line]:
    at = created(told.report)
    made = f"{study.protocol_title or 'No protocol fits'} · {at:%Y-%m-%d %H:%M} · {MODEL} {told.report.program_version}"
    lines = _wrapped(NOT_FOR_DIAGNOSIS, 24, _MARK)
    if told.assessed:
        lines += _wrapped(told.assessed_words, 17, _GREY)
    return lines + _wrapped(made, 17, _GREY)


def _scaled(image: KeyImage) -> tuple[int, int]:
    """Width and height of a key slice on the picture."""
    rows, columns = image.pixels.shape
    scale = TILE / max(rows, columns)
    return max(1, round(columns * scale)), max(1, round(rows * scale))


def _tile(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int, int],
    image: KeyImage,
    study: StudyReport,
) -> None:
    """One key slice, its sides and its words; `place` is left, top and height."""
    left, top, height = place
    width_there, height_there = _scaled(image)
    picture = Image.fromarray(image.pixels).resize(
        (width_there, height_there), Image.Resampling.LANCZOS
    )
    x, y = left + (TILE - width_there) // 2, top + (height - height_there) // 2
    canvas.paste(picture.convert("RGB"), (x, y))
    middle = top + height // 2 - 12
    for side, mark in ((left + 6, image.left_mark), (left + TILE - 22, image.right_mark)):
        if mark:
            pen.text(
                (side, middle),
                mark,
                fill=_MARK,
                font=_font(24),
                stroke_width=2,
                stroke_fill=_BLACK,
            )
    count = study.series.shape[0] if study.series else 0
    where = f"Slice {image.slice_index + 1} of {count}"
    if study.series is not None and study.series.orientation == "projection":
        where = f"Image {image.slice_index + 1} of {count}, {image.view or 'view not stated'}"
    words = ", ".join(image.findings) or "for comparison"
    lines = [_Line(f"{where} · {image.window}", 17, _GREY), *_wrapped(words, 17, _WHITE, TILE)[:2]]
    _write(pen, left, top + height + 4, lines)


def _wrapped(text: str, size: int, colour: _Colour, width: int = WIDTH - 2 * GAP) -> list[_Line]:
    letters = max(8, int(width / (size * 0.52)))
    return [_Line(part, size, colour) for part in textwrap.wrap(text, letters)]


def _write(pen: ImageDraw.ImageDraw, left: int, top: int, lines: list[_Line]) -> None:
    for line in lines:
        pen.text((left, top), line.text, fill=line.colour, font=_font(line.size))
        top += _height(line)


def _height(line: _Line) -> int:
    return round(line.size * 1.3)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow carries: the device may have none."""
    return ImageFont.load_default(size)
