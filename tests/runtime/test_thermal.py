"""Heat that slows a processor is seen where Linux tells it, and said beside the times of a study."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.thermal import Throttling, heat_words, read_throttling, was_slowed
from edge_medgemma.runtime.triage import progress

SENTENCE = "the processor was slowed down for heat meanwhile"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


THERMAL = "sys/class/thermal/cooling_device"
CORE = "sys/devices/system/cpu/cpu0/thermal_throttle"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Throttling(None, None)),
        (
            {f"{CORE}/core_throttle_count": "3\n", f"{CORE}/package_throttle_count": "4\n"},
            Throttling(7, None),
        ),
        (
            {
                f"{THERMAL}0/type": "Processor\n", f"{THERMAL}0/cur_state": "0\n",
                f"{THERMAL}1/type": "Fan\n", f"{THERMAL}1/cur_state": "1\n",
            },
            Throttling(None, 0),
        ),
        (
            {
                f"{THERMAL}0/type": "cpufreq-cpu0\n", f"{THERMAL}0/cur_state": "0\n",
                f"{THERMAL}1/type": "thermal-cpufreq-4\n", f"{THERMAL}1/cur_state": "2\n",
            },
            Throttling(None, 2),
        ),
        ({f"{THERMAL}0/type": "Processor\n", f"{THERMAL}0/cur_state": "x"}, Throttling(None, None)),
    ],
)  # fmt: skip
def test_what_the_system_tells(files: dict[str, str], expected: Throttling, tmp_path: Path) -> None:
    assert read_throttling(write(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Throttling(None, None), Throttling(None, None), False),
        (Throttling(7, None), Throttling(7, None), False),
        (Throttling(7, None), Throttling(8, None), True),
        (Throttling(None, 0), Throttling(None, 0), False),
        (Throttling(None, 0), Throttling(None, 1), True),
        (Throttling(None, 1), Throttling(None, 0), True),
    ],
)
def test_slowed_between_two_moments(before: Throttling, after: Throttling, expected: bool) -> None:
    assert was_slowed(before, after) is expected


def test_words() -> None:
    assert "not known" in heat_words(Throttling(None, None))
    assert (
        heat_words(Throttling(0, None))
        == heat_words(Throttling(None, 0))
        == ("no core was slowed for heat")
    )
    assert "(7 events)" in heat_words(Throttling(7, 0))
    assert "at this moment" in heat_words(Throttling(7, 1))


@pytest.mark.parametrize("is_hot", [True, False])
def test_a_triage_says_it(is_hot, phantom_scan, tmp_path, monkeypatch) -> None:
    events = iter(range(0, 1000, is_hot)) if is_hot else iter([0] * 1000)
    monkeypatch.setattr(progress, "read_throttling", lambda: Throttling(next(events), None))
    words = ["triage", str(phantom_scan), "--slices", "2", "--no-cache", "--out", str(tmp_path)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert (f"note: {SENTENCE}; with more air" in result.stderr) is is_hot
    (study,) = json.loads((tmp_path / "triage.json").read_text())["studies"]
    assert study["was_slowed_by_heat"] is is_hot
    assert (SENTENCE in (tmp_path / "report.html").read_text()) is is_hot
