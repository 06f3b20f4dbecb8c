"""The page and the table say what was measured."""

import re

import pytest

from edge_medgemma.calibration.loss.loss_report import Measured, table, write_report
from edge_medgemma.calibration.loss.quantization_error import measure_loss


@pytest.fixture(scope="module")
def measured(tiny_engine, calibration):
    return Measured("fp32", 7_000_000, measure_loss(tiny_engine, calibration, threads=1))


def test_the_float_engine_loses_nothing(measured, tiny_engine, calibration):
    loss = measured.loss
    assert loss.kl_nats < 1e-9
    assert loss.top1_agreement == 1
    assert loss.flags_flipped == 0
    assert loss.image_cosine > 1 - 1e-6
    manifest = tiny_engine.manifest
    assert len(loss.layers) == manifest.vision.layers + manifest.text.layers
    assert min(layer.sqnr_db for layer in loss.layers) > 90
    assert len(loss.slice_kl_nats) == len(calibration.held_out())


def test_the_page_holds_all_it_needs(measured, calibration, tmp_path):
    path = tmp_path / "loss.html"
    write_report(path, calibration, [measured])
    page = path.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("<svg") == 3
    for line in re.findall(r'points="([^"]*)"', page):
        assert all(-1 <= float(n) <= 641 for point in line.split() for n in point.split(","))
    for finding in measured.loss.findings:
        assert finding.code in page
    assert page.count("data:image/png") == min(6, len(calibration.held_out()))


def test_a_page_without_engines_shows_the_ranges(calibration, tmp_path):
    write_report(tmp_path / "ranges.html", calibration, [])
    page = (tmp_path / "ranges.html").read_text()
    assert all(name.removeprefix("vision.encoder.") in page for name in calibration.vision)


def test_the_table_has_a_line_for_each_engine(measured, calibration):
    lines = table(calibration, [measured, measured]).splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["fp32", "fp32"]
    assert "held out" in lines[0]
