from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from pydicom import dcmread

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS, FRACTURE, HAEMORRHAGE, MASS_EFFECT
from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_blank, draw_phantom
from edge_medgemma.calibration.phantoms.inserted import insert_lesions
from edge_medgemma.calibration.phantoms.real_head import open_real_head, sample_plane
from edge_medgemma.runtime.errors import ScanError

HEAD_CT = Path(__file__).resolve().parents[2] / "data/ct_head"
SLICES = 8


@pytest.fixture(scope="module")
def head():
    return open_real_head(HEAD_CT)


def _pair(head, seed, finding):
    """The same view of the head with a finding and without."""
    return (
        insert_lesions(head, seed, findings=frozenset({finding}), count=SLICES),
        insert_lesions(head, seed, findings=frozenset(), count=SLICES),
    )


def test_the_vault_is_found_and_the_base_is_not(head):
    vault = [i for i, table in enumerate(head.inner_table_mm) if table is not None]
    assert set(range(15, 25)) <= set(vault)
    assert not set(range(10)) & set(vault)
    for index in range(15, 25):  # bone just outside the inner table, none just inside
        table = head.inner_table_mm[index]
        azimuths = -np.pi + 2 * np.pi * np.arange(len(table)) / len(table)
        x, y = head.centres_mm[index]
        at = [
            sample_plane(
                head.hounsfield[index],
                head.pixel_mm,
                x + (table + step) * np.cos(azimuths),
                y + (table + step) * np.sin(azimuths),
            )
            for step in (2.0, -4.0)
        ]
        assert np.median(at[0]) > 250
        assert np.median(at[1]) < 100


def test_same_seed_draws_the_same_voxels(head):
    first, again = (insert_lesions(head, 7, count=3) for _ in range(2))
    assert np.array_equal(first.hounsfield, again.hounsfield)
    assert first.findings == again.findings
    assert not np.array_equal(first.hounsfield, insert_lesions(head, 8, count=3).hounsfield)


def test_some_slices_are_those_of_the_whole_scan(head):
    whole, some = insert_lesions(head, 11), insert_lesions(head, 11, count=4)
    rows = [whole.slice_indices.index(i) for i in some.slice_indices]
    assert np.array_equal(whole.hounsfield[rows], some.hounsfield)


def test_findings_come_alone_and_together(head):
    assert insert_lesions(head, 1, findings=frozenset(), count=SLICES).findings == frozenset()
    seen = {code: 0 for code in FINDINGS}
    for seed in range(12):
        for code in insert_lesions(head, seed, count=4).findings:
            seen[code] += 1
    assert all(seen.values()), seen


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_blood_is_denser_than_the_brain_it_covers(head, seed):
    with_blood, without = _pair(head, seed, HAEMORRHAGE)
    mask = with_blood.finding_masks[HAEMORRHAGE]
    difference = with_blood.hounsfield - without.hounsfield
    assert np.median(difference[mask]) > 10
    assert np.median(with_blood.hounsfield[mask]) < 110
    shown = with_blood.finding_slices[HAEMORRHAGE]
    areas = mask.sum(axis=(1, 2)) * np.prod(with_blood.spacing_mm[1:])
    assert [i for i in range(len(areas)) if areas[i] >= 60] == list(shown)


def test_a_mass_pushes_the_midline_away_from_its_side(head):
    phantom, _ = _pair(head, 2, MASS_EFFECT)
    most = phantom.midline_shift_mm[np.abs(phantom.midline_shift_mm).argmax()]
    assert abs(most) >= 4
    columns = np.nonzero(phantom.finding_masks[MASS_EFFECT])[2]
    to_the_left = columns.mean() > phantom.hounsfield.shape[2] / 2
    assert (most < 0) == to_the_left


def test_a_fracture_opens_the_bone(head):
    broken, whole = _pair(head, 3, FRACTURE)
    opened = (whole.hounsfield > 400) & (broken.hounsfield < 150)
    inside = opened & broken.finding_masks[FRACTURE]
    assert inside.sum() > 0.5 * opened.sum() > 20  # the fragment leaves its place too


def test_two_heads_are_two_studies(head):
    """The same seed in another patient's head must not join the first one's study."""
    other = replace(head, sha256="another")
    found = {_study_uid(insert_lesions(one, 5, count=1)) for one in (head, other)}
    assert len(found) == 2


def _study_uid(phantom):
    with TemporaryDirectory() as folder:
        (path, *_) = write_dicom_series(phantom, Path(folder))
        return dcmread(path).StudyInstanceUID


def test_a_folder_that_is_no_head_is_refused_and_named(tmp_path):
    write_dicom_series(draw_blank(slices=4), tmp_path)
    with pytest.raises(ScanError, match="no closed skull"):
        open_real_head(tmp_path)
    write_dicom_series(draw_phantom(1, count=3), tmp_path / "second")
    with pytest.raises(ScanError, match="2 series"):
        open_real_head(tmp_path)
