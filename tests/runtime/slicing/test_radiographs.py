"""Chest radiographs whose display attributes are wrong, and studies of several images."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from edge_medgemma.runtime.slicing.choose import choose_series
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Modality, View
from edge_medgemma.runtime.slicing.windows import render_stack

SIDE = 120


def chest(bits: int = 12) -> np.ndarray:
    """[120, 120] stored values: dark air and lungs, bright body, spine and markers, some noise."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    values = np.full((SIDE, SIDE), 0.5)
    for centre in (0.28, 0.72):
        lung = np.hypot((columns - centre) / 0.15, (rows - 0.45) / 0.32) < 1
        values[lung] = 0.15
    values[:, int(0.45 * SIDE) : int(0.55 * SIDE)] = 0.85
    values[:, :6] = values[:, -6:] = 0.02
    values[:8, -12:] = 1.0
    noise = np.random.default_rng(1).normal(0, 0.01, values.shape)
    return np.clip((values + noise) * (2**bits - 1), 0, 2**bits - 1).astype(np.uint16)


def write(write_slice, name: str = "dx", pixels: np.ndarray | None = None, **changes):
    attributes = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": f"1.2.77.{sum(name.encode())}",
        "BodyPartExamined": "CHEST", "ViewPosition": "PA", "PatientOrientation": ["L", "F"],
        "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "PixelSpacing": [3.0, 3.0],
        "RescaleIntercept": None, "RescaleSlope": None, "Modality": "DX",
        "pixels": chest() if pixels is None else pixels,
    }  # fmt: skip
    return write_slice(0, name, **{**attributes, **changes})


def seen(path) -> tuple[np.ndarray, set[str]]:
    """The image [rows, columns] as the model is shown it, 0 to 255, and the names of problems."""
    (series,) = find_series(path).series
    stack = render_stack(read_volume(series))
    return stack.pixels[0, :, :, 0].astype(float), {problem.name for problem in stack.problems}


def is_right(image: np.ndarray) -> bool:
    """Lungs dark, spine bright, the two more than half of the range apart."""
    rows = slice(SIDE // 3, SIDE // 2)
    spine = image[rows, SIDE // 2 - 3 : SIDE // 2 + 3].mean()
    lungs = image[rows, int(0.22 * SIDE) : int(0.34 * SIDE)].mean()
    return spine - lungs > 110


def lut(bits: int, largest: int) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, bits]
    item.LUTData = np.linspace(0, largest, 4096).astype(np.uint16).tobytes()
    return [item]


NEGATIVE = 4095 - chest()

DISPLAYS = {
    "no window": {},
    "window": {"WindowCenter": 2048, "WindowWidth": 4096},
    "MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1", "pixels": NEGATIVE},
    "INVERSE": {"PresentationLUTShape": "INVERSE", "pixels": NEGATIVE},
    "both": {"PresentationLUTShape": "INVERSE", "PhotometricInterpretation": "MONOCHROME1",
             "pixels": NEGATIVE},
    "LUT of 12 bits": {"VOILUTSequence": lut(12, 4095)},
    "LUT of 12 bits said to be of 16": {"VOILUTSequence": lut(16, 4095)},
    "LUT of 16 bits said to be of 8": {"VOILUTSequence": lut(8, 65535)},
}  # fmt: skip


@pytest.mark.parametrize("name", DISPLAYS)
def test_whatever_the_header_says_the_lungs_are_dark(write_slice, name: str) -> None:
    image, problems = seen(write(write_slice, **DISPLAYS[name]))
    assert is_right(image)
    assert problems == set()


def hot(rows: int = 1) -> np.ndarray:
    pixels = chest()
    pixels[5 : 5 + rows] = 65535
    return pixels


WRONG = {
    "a window far above": ({"WindowCenter": 60000, "WindowWidth": 100}, "display_window_replaced"),
    "a window far below": ({"WindowCenter": -9000, "WindowWidth": 10}, "display_window_replaced"),
    "a hot row": (
        {"pixels": hot(), "BitsStored": 16, "HighBit": 15}, "outlying_pixels"),
    "a dozen hot rows": (
        {"pixels": hot(12), "BitsStored": 16, "HighBit": 15}, "outlying_pixels"),
    "a window of the air": ({"WindowCenter": 500, "WindowWidth": 1000}, "display_window_replaced"),
    "a negative of no stated part": (
        {"pixels": NEGATIVE, "BodyPartExamined": None}, "display_inverted"),
    "MONOCHROME2 of a negative": ({"pixels": NEGATIVE}, "display_inverted"),
    "MONOCHROME1 of a positive": ({"PhotometricInterpretation": "MONOCHROME1"}, "display_inverted"),
    "INVERSE of a positive": ({"PresentationLUTShape": "INVERSE"}, "display_inverted"),
    "10 bits said of 12": ({"BitsStored": 10, "HighBit": 9}, "bits_beyond_stored"),
    "8 bits said of 12": ({"BitsStored": 8, "HighBit": 7}, "wrapped_values"),
    "wrapped before": (
        {"pixels": ((chest() + 2048) % 4096).astype(np.uint16)}, "wrapped_values"),
    "black": ({"pixels": np.full((SIDE, SIDE), 7, np.uint16)}, "constant_intensity"),
    "raw values of the detector": (
        {"SOPClassUID": DigitalXRayImageStorageForProcessing}, "for_processing"),
    "sides not stated": ({"PatientOrientation": None}, "sides_not_stated"),
    "a frontal view with the orientation of a lateral": (
        {"PatientOrientation": ["A", "F"]}, "sides_not_stated"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_display_is_repaired_or_named(write_slice, name: str) -> None:
    changes, problem = WRONG[name]
    _, problems = seen(write(write_slice, **changes))
    assert problem in problems


@pytest.mark.parametrize(
    "name",
    [
        "a window far above",
        "a window far below",
        "a window of the air",
        "a hot row",
        "a dozen hot rows",
    ],
)
def test_what_is_repaired_is_right(write_slice, name: str) -> None:
    image, problems = seen(write(write_slice, **WRONG[name][0]))
    assert is_right(image) and "display_inverted" not in problems


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (["L", "F"], lambda image: image),
        (["R", "F"], lambda image: image[:, ::-1]),
        (["L", "H"], lambda image: image[::-1]),
        (["R", "H"], lambda image: image[::-1, ::-1]),
        (["F", "L"], lambda image: image.T),
        (["H", "R"], lambda image: image[::-1, ::-1].T),
    ],
)
def test_a_radiograph_is_hung_by_its_patient_orientation(write_slice, orientation, stored) -> None:
    upright, _ = seen(write(write_slice))
    turned, _ = seen(
        write(write_slice, pixels=np.ascontiguousarray(stored(chest())),
              PatientOrientation=orientation)
    )  # fmt: skip
    np.testing.assert_array_equal(turned, upright)


def series_of(*paths):
    return find_series(paths[0].parent).series


def test_frontal_and_lateral_are_read_together_the_frontal_first(write_slice) -> None:
    small = chest()[:100, :90]
    lateral = write(
        write_slice,
        "a",
        small,
        ViewPosition="LL",
        SeriesInstanceUID="1.2.1",
        PatientOrientation=["A", "F"],
    )
    frontal = write(write_slice, "b", SeriesInstanceUID="1.2.2")
    chosen, reason = choose_series(series_of(lateral, frontal), [Modality.DX], images=4)
    assert (chosen.views, chosen.shape) == ((View.PA, View.LATERAL), (2, SIDE, SIDE))
    assert reason == "2 radiographs were taken: PA, lateral"
    volume = read_volume(chosen)
    assert volume.array.shape == (2, SIDE, SIDE)
    assert volume.array[1, 0].max() == 0  # the smaller one lies in the middle of black


def test_the_image_for_presentation_goes_before_the_raw_one(write_slice) -> None:
    raw = write(
        write_slice, "a", NEGATIVE, SOPClassUID=DigitalXRayImageStorageForProcessing,
        PresentationIntentType="FOR PROCESSING", SeriesInstanceUID="1.2.1",
    )  # fmt: skip
    shown = write(
        write_slice, "b", ImageType=["DERIVED", "PRIMARY"], SeriesInstanceUID="1.2.2",
        PresentationIntentType="FOR PRESENTATION",
    )  # fmt: skip
    chosen, _ = choose_series(series_of(raw, shown), [Modality.DX], images=4)
    assert (chosen.is_for_processing, chosen.shape[0]) == (False, 1)


@pytest.mark.parametrize(
    ("changes", "view"),
    [
        ({"ViewPosition": "AP"}, View.AP),
        ({"ViewPosition": "RL"}, View.LATERAL),
        ({"ViewPosition": None, "SeriesDescription": "Thorax seitlich"}, View.LATERAL),
        ({"ViewPosition": None, "SeriesDescription": "Chest P.A."}, View.PA),
        ({"ViewPosition": None, "SeriesDescription": "PA and LAT"}, View.UNKNOWN),
        ({"ViewPosition": None}, View.UNKNOWN),
    ],
)
def test_the_view_is_named(write_slice, changes, view) -> None:
    (series,) = find_series(write(write_slice, **changes)).series
    assert series.views == (view,)
