"""`inspect --json` of every real scan against dcm2niix and the reference NIfTI files.

Whatever differs stands in `DIFFERENCES` with its reason; a difference that is not there, or one
that is there and has gone, fails.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from edge_medgemma.runtime.commands.inspect import command
from edge_medgemma.runtime.slicing.scan import find_series

SHARED_DATA = Path(__file__).resolve().parents[3] / "../shared/data"

MIN_AGREED_SERIES, MIN_NIFTI_FILES = 22, 51
"""So that a folder that is not looked at cannot pass for one without differences."""

Different = dict[str, str]
"""What differs: dcm2niix's, then this reader's."""

DIFFERENCES: list[tuple[str, dict[tuple[str, str], Different]]] = [
    (
        "the corners outside the field of view are padding, which becomes air (-1024)",
        {
            ("ct_chest_tcia_cmbcrc", "14846513"): {"min": "-3024 -1024"},
            ("ct_covid_sbu_single_slices", "26458547"): {"min": "-3024 -1024"},
            ("ct_covid_sbu_single_slices", "65199671"): {"min": "-3024 -1024"},
            ("ct_covid_sbu_single_slices", "66735215"): {"min": "-3024 -1024"},
            ("ct_covid_sbu_single_slices", "91791631"): {"min": "-3024 -1024"},
            ("dcmqi_ct3slice_seg_sr", ".23430.1"): {"min": "-3024 -1024"},
        },
    ),
    (
        "tilted: dcm2niix steps by the distance of planes, this reader by that of corners",
        {
            ("ct_ge_head_tilt", "14813892"): {
                "centre": "21.95 mm apart", "min": "-1500 -1024", "orientation": "1.626 mm a step",
            },
            ("dicom2nifti_tests", "40321185"): {
                "centre": "0.23 mm apart", "orientation": "0.149 mm a step",
            },
            ("dicom2nifti_tests", "58856228"): {
                "centre": "0.42 mm apart", "orientation": "0.288 mm a step",
            },
        },
    ),
    (
        "missing slices: dcm2niix spaces all by the first step, this reader spans the true length",
        {
            ("dicom2nifti_tests", "17197937"): {
                "centre": "2.50 mm apart", "orientation": "1.667 mm a step",
            },
            ("monai_ct4", "8319.0.2"): {
                "centre": "201.25 mm apart",
                "orientation": "134.167 mm a step",
                "spacing": "[0.4883, 0.4883, 202.5] [0.488281, 0.488281, 1.25]",
            },
        },
    ),
    (
        "Philips: dcm2niix divides by the private scale slope, here is what the header rescales to",
        {
            ("dicom2nifti_tests", "24825182"): {"max": "918387 1081.75"},
            ("dicom2nifti_tests", "25035788"): {"max": "468225 472.273"},
            ("dicom2nifti_tests", "38673612"): {"max": "1.21214e+06 3707.53"},
            ("dicom2nifti_tests", "48316927"): {"max": "463836 605.816"},
            ("dicom2nifti_tests", "48897142"): {"max": "463836 605.816"},
            ("dicom2nifti_tests", "49371737"): {"max": "468225 472.273"},
            ("mr_enhanced_siemens_philips", "50908935"): {"max": "2.35659e+08 2548.19"},
        },
    ),
    (
        "the range of the first time point, not of all four",
        {
            ("mr_agfa_private_rename", "26858410"): {"max": "2642 2633"},
            ("mr_agfa_private_rename", "82.0.0.0"): {"max": "2642 2633"},
        },
    ),
    (
        "the same four slices in four encodings: copies for dcm2niix, named time points here",
        {("dicom2nifti_tests", "44257421"): {"times": "1 4"}},
    ),
    (
        "four images at one position: for dcm2niix one volume of four times, here four stacks",
        {("dicom2nifti_tests", "15759294"): {"volumes": "1 4"}},
    ),
    (
        "localizers give no volume",
        {
            ("ct_kits_abdomen18_topogram", "12888259"): {"volumes": "1 0"},
            ("dicom2nifti_tests", "28571744"): {"volumes": "2 0"},
        },
    ),
    (
        "segmentations, parametric maps, secondary captures and colour give no volume",
        {
            ("dcmqi_ct3slice_seg_sr", "2.777032"): {"volumes": "1 0"},
            ("dcmqi_ct3slice_seg_sr", "5.238878"): {"volumes": "1 0"},
            ("dicom2nifti_tests", "59515224"): {"volumes": "1 0"},
            ("pydicom_data", ".200.2.4"): {"volumes": "1 0"},
            ("pydicom_data", "200.1.18"): {"volumes": "1 0"},
            ("pydicom_data", "96442118"): {"volumes": "1 0"},
        },
    ),
    (
        "the file of the other volume is not among the scans",
        {("pydicom_data", "059.5457"): {"volumes": "2 1"}},
    ),
]  # fmt: skip
"""By reason, then (data set, end of the series UID)."""

COLOUR_NIFTI = {
    "dicom2nifti_tests/generic/rgb/001_ground_truth.nii.gz",
    "dicom2nifti_tests/generic/rgb/001_ground_truth_reoriented.nii.gz",
}
"""Reference files without a single number a voxel: refused."""

SPACING_TOLERANCE_MM = 1e-3
POSITION_TOLERANCE_MM = 0.05
"""The oracle's affines are rounded to 4 decimals, which 512 pixels multiply."""

VALUE_TOLERANCE = 2e-3
"""The oracle's values are rounded to 3 decimals."""

RELATIVE_VALUE_TOLERANCE = 1e-6
"""Of float32 rescale."""


@dataclass(frozen=True)
class Volume:
    """What both sides say of one volume."""

    counts: tuple[int, ...]
    """Voxels along left-right, front-back, feet-head."""
    spacing_mm: NDArray[np.float64]
    """[3], along the same axes."""
    steps_mm: NDArray[np.float64]
    """[3, 3]: step along each of these axes in LPS, turned to its positive side."""
    centre_mm: NDArray[np.float64]
    times: int
    low: float
    high: float


def by_patient_axis(
    shape: list[int],
    spacing_mm: list[float],
    affine_lps_mm: NDArray[np.float64],
    times: int,
    value_range: tuple[float, float],
) -> Volume:
    axes = np.argmax(np.abs(affine_lps_mm[:3, :3]), axis=0)
    assert sorted(axes) == [0, 1, 2]
    order = np.argsort(axes)
    steps = affine_lps_mm[:3, :3].T[order]
    steps = steps * np.sign(np.diag(steps))[:, None]
    centre = affine_lps_mm @ [*((np.array(shape) - 1) / 2), 1]
    counts, spacing = tuple(shape[i] for i in order), np.array(spacing_mm)[order]
    return Volume(counts, spacing, steps, centre[:3], times, *value_range)


def oracle_volume(entry: dict[str, Any]) -> Volume:
    affine = np.diag([-1.0, -1, 1, 1]) @ np.array(entry["affine"])
    times = math.prod(entry["shape"][3:])
    value_range = entry["min"], entry["max"]
    return by_patient_axis(entry["shape"][:3], entry["zooms"][:3], affine, times, value_range)


def inspected_volumes(scan: Path) -> Iterator[tuple[str, Volume]]:
    """Series UID and what `inspect --json` says of each DICOM volume, or of one NIfTI file."""
    result = CliRunner().invoke(command, [str(scan), "--json"])
    if result.exit_code:
        return
    listed = json.loads(result.output)["volumes"]
    for volume, series in zip(listed, find_series(scan).series, strict=True):
        assert volume["spacing_mm"] == pytest.approx(series.spacing_mm, abs=1e-6)
        details = {problem["name"]: problem["detail"] for problem in volume["problems"]}
        if "modality_guessed" in details and scan.is_dir():
            continue
        times = int(details["time_series"].split()[0]) if "time_series" in details else 1
        shape, spacing, value_range = (volume[key] for key in ("shape", "spacing_mm", "range"))
        affine = series.affine_lps_mm
        yield volume["series_uid"], by_patient_axis(shape, spacing, affine, times, value_range)


def differences(theirs: Volume, ours: Volume) -> dict[str, str]:
    found = {}
    if theirs.counts != ours.counts:
        found["shape"] = f"{theirs.counts} {ours.counts}"
    if theirs.times != ours.times:
        found["times"] = f"{theirs.times} {ours.times}"
    if np.abs(theirs.spacing_mm - ours.spacing_mm).max() > SPACING_TOLERANCE_MM:
        found["spacing"] = f"{theirs.spacing_mm.tolist()} {ours.spacing_mm.tolist()}"
    if np.abs(theirs.steps_mm - ours.steps_mm).max() > SPACING_TOLERANCE_MM:
        found["orientation"] = f"{np.abs(theirs.steps_mm - ours.steps_mm).max():.3f} mm a step"
    distance = np.linalg.norm(theirs.centre_mm - ours.centre_mm)
    if distance > POSITION_TOLERANCE_MM:
        found["centre"] = f"{distance:.2f} mm apart"
    for name, value, other in (("min", theirs.low, ours.low), ("max", theirs.high, ours.high)):
        if abs(value - other) > VALUE_TOLERANCE + RELATIVE_VALUE_TOLERANCE * abs(value):
            found[name] = f"{value:g} {other:g}"
    return found


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    path = SHARED_DATA / "oracle.json"
    if not path.is_file():
        pytest.skip("the real scans in ../shared/data are not on this machine")
    datasets: dict[str, Any] = json.loads(path.read_text())["datasets"]
    return datasets


def test_dicom_volumes_are_those_of_dcm2niix(oracle: dict[str, Any]) -> None:
    found: dict[tuple[str, str], dict[str, str]] = {}
    agreed = 0
    for name, entries in oracle.items():
        theirs = converted_volumes(SHARED_DATA / name, entries["live"])
        ours = defaultdict(list)
        for uid, volume in inspected_volumes(SHARED_DATA / name):
            ours[uid].append(volume)
        for uid in theirs.keys() | ours.keys():
            different = series_differences(theirs[uid], ours[uid])
            if different:
                found[name, uid[-8:]] = different
            agreed += not different
    print(f"{agreed} series agree, {len(found)} differ as listed")
    assert agreed >= MIN_AGREED_SERIES
    assert found == {
        (name, uid): different
        for _, listed in DIFFERENCES
        for (name, uid), different in listed.items()
    }


def converted_volumes(scan: Path, live: list[dict[str, Any]]) -> dict[str, list[Volume | None]]:
    """What dcm2niix made of the series whose files are here, resampled copies left out."""
    here = {uid for path in scan.rglob("*") if (uid := series_uid(path))}
    volumes = defaultdict(list)
    for entry in live:
        uid = (entry.get("json") or {}).get("SeriesInstanceUID")
        if uid in here:
            volumes[uid].append(oracle_volume(entry) if entry.get("max") is not None else None)
    return volumes


def series_uid(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        dataset = pydicom.dcmread(
            path, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True
        )
    except pydicom.errors.InvalidDicomError:
        return ""
    return str(dataset.get("SeriesInstanceUID", ""))


def series_differences(theirs: list[Volume | None], ours: list[Volume]) -> dict[str, str]:
    if len(theirs) != len(ours) or None in theirs:
        return {"volumes": f"{len(theirs)} {len(ours)}"}
    different: dict[str, str] = {}
    whole = [volume for volume in theirs if volume is not None]
    for one, other in zip(sorted(whole, key=by_range), sorted(ours, key=by_range), strict=True):
        different |= differences(one, other)
    return different


def by_range(volume: Volume) -> tuple[float, float]:
    return volume.low, volume.high


def test_reference_nifti_files_are_read_as_nibabel_reads_them(oracle: dict[str, Any]) -> None:
    compared, refused = 0, set()
    for name, entries in oracle.items():
        for path in sorted((SHARED_DATA / name).rglob("*.nii*")):
            volumes = list(inspected_volumes(path))
            if not volumes:
                refused.add(path.relative_to(SHARED_DATA).as_posix())
                continue
            ((_, volume),) = volumes
            named = [e for e in entries["reference"] if e["file"] == path.name and "min" in e]
            assert {} in [differences(oracle_volume(entry), volume) for entry in named], path.name
            compared += 1
    print(f"{compared} NIfTI files agree")
    assert compared >= MIN_NIFTI_FILES
    assert refused == COLOUR_NIFTI
