import itertools
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_medgemma.runtime.documents import dump_sealed, unsealed
from edge_medgemma.runtime.domain import StudyDistance
from edge_medgemma.runtime.errors import EvaluationError, ResourceError
from edge_medgemma.runtime.reporting.html_report import render_html
from edge_medgemma.runtime.reporting.json_report import dump_report
from edge_medgemma.runtime.reporting.report_folder import read_report_folder, write_report_folder
from edge_medgemma.runtime.triage.protocol import StandardCode
from edge_medgemma.runtime.triage.report import FindingResult, KeyImage, KeySlice, TriageReport

INDICES = st.integers(0, 10**6)
WORDS = st.text(min_size=1).map(lambda text: f"{text}x")
PICTURES = st.builds(
    KeyImage,
    slice_index=INDICES,
    pixels=arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5))),
)
FINDINGS = st.builds(
    FindingResult,
    standard_code=st.none() | st.builds(StandardCode, scheme=WORDS, value=WORDS, display=WORDS),
    key_slices=st.lists(st.builds(KeySlice, slice_index=INDICES), max_size=2).map(tuple),
)
DISTANCES = st.builds(StudyDistance, num_studies=INDICES)


def differences(one: Any, other: Any, path: str = "report") -> list[str]:
    """Paths at which two reports differ, in a value or its type."""
    if is_dataclass(one) and type(one) is type(other):
        pairs = [(getattr(one, f.name), getattr(other, f.name), f.name) for f in fields(one)]
        return [p for a, b, name in pairs for p in differences(a, b, f"{path}.{name}")]
    if isinstance(one, np.ndarray):
        return [] if np.array_equal(one, other) and one.dtype == other.dtype else [path]
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return [
            p
            for i, pair in enumerate(zip(one, other, strict=True))
            for p in differences(*pair, f"{path}[{i}]")
        ]
    if isinstance(one, float) and isinstance(other, float):
        return [] if repr(one) == repr(other) else [path]  # NaN and -0.0 included
    return [] if one == other and isinstance(other, type(one)) else [path]


def test_a_folder_gives_back_the_report_that_it_was_made_of(report, tmp_path) -> None:
    write_report_folder(report, tmp_path / "1")
    assert differences(report, read_report_folder(tmp_path / "1")) == []
    assert (tmp_path / "1" / "triage.json").read_text() == dump_report(report)
    assert (tmp_path / "1" / "report.html").read_text() == render_html(report)
    shown = sum(len(study.key_images) for study in report.studies)
    assert len(list((tmp_path / "1" / "key_images").iterdir())) == shown > 0


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_number_and_pixel_comes_back(report, tmp_path_factory, data) -> None:
    study = report.studies[0]
    changed = replace(
        study,
        key_images=tuple(data.draw(st.lists(PICTURES, max_size=2))),
        findings=tuple(data.draw(st.lists(FINDINGS, max_size=2))),
        distance=data.draw(st.none() | DISTANCES),
        limitations=tuple(data.draw(st.lists(st.text(), max_size=2))),
    )
    changed = replace(report, studies=(changed,))
    folder = tmp_path_factory.mktemp("property") / "1"
    _write_record_only(changed, folder)
    assert differences(changed, read_report_folder(folder)) == []


def _write_record_only(report: TriageReport, folder: Path) -> None:
    """Numbers that no engine gives are not fit for the page, which is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        module = "edge_medgemma.runtime.reporting.report_folder"
        patch.setattr(f"{module}.render_html", lambda *arguments: "")
        patch.setattr(f"{module}.dump_report", lambda *arguments: "")
        write_report_folder(report, folder)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


NAMES = ("record.json", "triage.json", "report.html", "key_images/001.png")
DAMAGES = (_flip, Path.unlink, lambda path: path.write_bytes(b""))


def test_a_damaged_folder_is_refused_with_one_line(report, tmp_path) -> None:
    write_report_folder(report, tmp_path / "1")
    for name, damage in itertools.product(NAMES, DAMAGES):
        path = tmp_path / "1" / name
        whole = path.read_bytes()
        damage(path)
        with pytest.raises(EvaluationError, match="result '1' cannot be read") as caught:
            read_report_folder(tmp_path / "1")
        assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    read_report_folder(tmp_path / "1")


def test_a_record_of_another_shape_is_refused(report, tmp_path) -> None:
    write_report_folder(report, tmp_path / "1")
    path = tmp_path / "1" / "record.json"

    record = msgspec.json.decode(unsealed(path.read_bytes()))
    for change in ({"record_version": 2}, {"report": {}}, {"report": [1]}):
        path.write_text(dump_sealed(record | change))
        with pytest.raises(EvaluationError):
            read_report_folder(tmp_path / "1")


def test_a_result_is_never_overwritten(report, tmp_path) -> None:
    write_report_folder(report, tmp_path / "1")
    with pytest.raises(ResourceError, match="exists already"):
        write_report_folder(report, tmp_path / "1")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
