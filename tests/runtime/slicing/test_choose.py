from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.slicing.choose import choose_series, series_keys, series_of_key
from edge_medgemma.runtime.slicing.dicom.dicom_terms import is_sharp_kernel
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import Modality, Problem, Series


@pytest.fixture
def axial(phantom: Path) -> Series:
    return find_series(phantom).series[0]


def resliced(series: Series, count: int, spacing_mm: float) -> Series:
    return replace(
        series,
        shape=(count, *series.shape[1:]),
        spacing_mm=(spacing_mm, *series.spacing_mm[1:]),
        positions_mm=np.arange(count) * spacing_mm,
    )


def test_each_rule_in_turn(axial: Series) -> None:
    thin = resliced(axial, 45, 0.5)
    others = [
        axial,
        replace(thin, is_sharp_kernel=True),
        resliced(axial, 10, 0.5),
        replace(thin, is_original=False),
        replace(thin, orientation="coronal"),
        replace(thin, problems=(Problem("not_hounsfield", "…"),)),
    ]
    chosen, reason = choose_series([*others, thin], [Modality.CT])
    assert chosen is thin
    assert reason == (
        "the axial original CT series of 45 slices over 22 mm was taken of 7 series; the others: "
        "1 with no more slices, 1 of a sharp kernel, 1 shorter, 1 derived, 1 not axial, "
        "1 not in Hounsfield units"
    )


@pytest.mark.parametrize("neck_uid", ["1.0", "9.9"])
def test_of_head_and_neck_in_one_series_the_head_is_taken(axial: Series, neck_uid: str) -> None:
    source = replace(axial.sources[0], sop_instance_uid=neck_uid)
    neck = resliced(axial, 60, 1.0)
    neck = replace(neck, positions_mm=neck.positions_mm - 55, sources=(source, *axial.sources[1:]))
    head = resliced(axial, 30, 2.0)
    chosen, reason = choose_series([neck, head], [Modality.CT])
    assert chosen is head
    assert "1 below the head" in reason


def test_the_order_of_the_list_does_not_matter(axial: Series) -> None:
    pair = [axial, replace(axial, series_uid="1.2.3.3")]
    assert choose_series(pair, [Modality.CT])[0] is choose_series(pair[::-1], [Modality.CT])[0]


def test_a_key_names_one_stack_and_a_uid_all_of_its_stacks(axial: Series) -> None:
    other = replace(axial, series_uid="1.2.3.3")
    second = resliced(axial, 3, 1.0)
    listed = [other, axial, second]
    assert series_keys(listed) == ["1.2.3.3", "1.2.3.4", "1.2.3.4#2"]
    assert series_of_key(listed, "1.2.3.4#2") == [second]
    assert series_of_key(listed, "1.2.3.4") == [axial, second]
    assert series_of_key(listed, "1.2.3.3") == [other]
    assert series_of_key(listed, "1.2.3.3#2") == []


def test_nothing_fits(axial: Series) -> None:
    assert choose_series([axial], [Modality.MR]) == (None, "none of the 1 series is MR")


@pytest.mark.parametrize(
    ("kernel", "is_sharp"),
    [
        ("STD+", False), ("STANDARD", False), ("BONEPLUS", True), ("LUNG", True), ("B30s", False),
        ("H60s", True), ("Br64d\\3", True), ("Hr40", False), ("FC21", False), ("FC51", True),
        ("UB", False), ("YC", True), ("", False),
    ],
)  # fmt: skip
def test_kernels(kernel: str, is_sharp: bool) -> None:
    assert is_sharp_kernel(kernel) is is_sharp
