"""The names that `edge_medgemma.runtime` offers, loaded when they are first used."""

import subprocess
import sys

import pytest

from edge_medgemma import runtime
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.chat_session import open_scan
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.triage_scan import triage_scan

SCRIPT = """
import sys
import edge_medgemma.runtime
heavy = {"numpy", "onnxruntime", "pydicom"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
from edge_medgemma.runtime import Engine, TriageOptions, open_scan, triage_scan
assert "numpy" in sys.modules
"""


def test_importing_the_package_loads_nothing_heavy_until_a_name_is_used() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


def test_every_public_name_is_the_one_of_its_module() -> None:
    expected = {
        "Engine": Engine,
        "TriageOptions": TriageOptions,
        "open_scan": open_scan,
        "triage_scan": triage_scan,
    }
    assert {name: getattr(runtime, name) for name in runtime.__all__} == expected


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Trage'"):
        _ = runtime.Trage
