from dataclasses import replace

import pytest
from pydicom.datadict import dictionary_VR
from support.fake_engine import FakeEngine
from support.synthetic_series import CANARIES, CANARY, write_head_ct

from edge_medgemma.runtime.reporting.html_report import render_html
from edge_medgemma.runtime.reporting.json_report import dump_report
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.triage_scan import triage_scan


def test_the_canaries_sit_in_every_text_representation() -> None:
    planted = {dictionary_VR(keyword) for keyword in CANARIES}
    assert planted >= {"PN", "LO", "SH", "ST", "LT", "UT", "UC"}


@pytest.mark.parametrize("lesion", [range(0), range(5, 9)])
def test_no_text_of_a_file_reaches_prompt_or_report(tmp_path, lesion) -> None:
    options = TriageOptions(baseline_folder=tmp_path / "controls")
    marked, bare = FakeEngine(), FakeEngine()
    scan = write_head_ct(tmp_path / f"{CANARY} folder", lesion=lesion)
    report = triage_scan(marked, scan, options)
    without = dict.fromkeys(CANARIES)
    clean = write_head_ct(tmp_path / "clean", lesion=lesion, **without)
    triage_scan(bare, clean, replace(options, baseline_folder=tmp_path / "other"))

    assert marked.prompt_ids == bare.prompt_ids
    cached = [path.read_text() for path in (tmp_path / "controls").iterdir()]
    texts = [*marked.tokenizer.texts, dump_report(report), render_html(report), *cached]
    assert cached and len(texts) > 20
    for text in texts:
        assert CANARY not in text.upper()
        assert "19010203" not in text
        assert str(tmp_path) not in text
