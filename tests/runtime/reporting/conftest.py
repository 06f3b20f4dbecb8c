"""Reports of drawn scans by the fake engine."""

import pytest
from support.fake_engine import FakeEngine, demo_scope, known_domain
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.report import TriageReport
from edge_medgemma.runtime.triage.triage_scan import triage_scan


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> TriageReport:
    """A flagged study, one without a flag, one too short and one that no protocol fits."""
    folder = tmp_path_factory.mktemp("report")
    scan = folder / "scan"
    write_head_ct(scan / "a", study="1")
    write_head_ct(scan / "b", study="2", lesion=range(4, 8))
    write_head_ct(scan / "c", study="3", slices=6)
    write_head_ct(scan / "d", study="4", BodyPartExamined=None)
    (scan / "notes.txt").write_text("not an image")
    scope = demo_scope(
        "For demonstration <only>.",
        ("intracranial_haemorrhage", "mass_effect"),
    )
    options = TriageOptions(baseline_folder=folder / "controls")
    engine = FakeEngine(scope).calibrate(folder / "engine", known_domain())
    return triage_scan(engine.fit({"mass_effect": (1.0, -4.0)}), scan, options)
