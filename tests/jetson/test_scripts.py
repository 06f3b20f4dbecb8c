"""The Jetson's scripts and units, as far as no Jetson is needed: staged, run dry, fed recordings."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

JETSON = Path(__file__).resolve().parents[2] / "jetson"
SCAN = Path(__file__).resolve().parents[1] / "data" / "ct_head"
SCRIPTS = sorted([*JETSON.glob("*.sh"), *(JETSON.parent / "tests").glob("*/*.sh")])

NVPMODEL_CONF = """\
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(JETSON / script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_a_staged_installation_is_complete_and_keeps_settings(tmp_path: Path) -> None:
    engine = JETSON.parent / "runtime" / "engines" / "demo"
    first = run("install.sh", "--root", str(tmp_path), "--engine", str(engine), "--swap", "8")
    assert first.returncode == 0, first.stderr
    assert files_below(tmp_path) == {
        "etc/edge-medgemma/settings.env",
        "etc/systemd/system/edge-medgemma-media@.service",
        "etc/systemd/system/edge-medgemma-power.service",
        "etc/udev/rules.d/90-edge-medgemma-media.rules",
        "opt/edge-medgemma/bin/power-mode.sh",
        "opt/edge-medgemma/bin/triage-media.sh",
    }
    assert (tmp_path / "var/lib/edge-medgemma/reports").stat().st_mode & 0o777 == 0o700
    settings = tmp_path / "etc/edge-medgemma/settings.env"
    assert f"EDGE_MEDGEMMA_ENGINE={engine}\n" in settings.read_text()
    assert "# fallocate -l 8G" in first.stdout  # a step of the system, printed and not done

    settings.write_text("EDGE_MEDGEMMA_SLICES=24\n")
    assert run("install.sh", "--root", str(tmp_path)).returncode == 0
    assert settings.read_text() == "EDGE_MEDGEMMA_SLICES=24\n"

    assert run("install.sh", "--root", str(tmp_path), "--uninstall").returncode == 0
    assert files_below(tmp_path) == {"etc/edge-medgemma/settings.env"}
    assert (tmp_path / "var/lib/edge-medgemma/reports").is_dir()


def test_a_dry_run_does_nothing(tmp_path: Path) -> None:
    done = run("install.sh", "--root", str(tmp_path / "stage"), "--dry-run", "--headless")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "stage").exists()
    assert "set-default multi-user.target" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--engine"], 2, "--engine needs a value"),
        (["--motor", "x"], 2, "unknown option '--motor'"),
        (["--engine", "/nowhere"], 1, "'/nowhere' is not an engine directory"),
        (["--wheels", "/nowhere"], 1, "'/nowhere' is not a folder of wheels"),
        (["--swap", "eight"], 1, "a whole number of GB"),
    ],
)
def test_bad_arguments_are_named(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    done = run("install.sh", "--root", str(tmp_path / "stage"), *arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert not (tmp_path / "stage").exists()


def test_another_machine_is_refused_before_anything_is_written() -> None:
    if Path("/etc/nv_tegra_release").exists():
        pytest.skip("this is a Jetson")
    done = run("install.sh")
    assert done.returncode == 1
    assert re.search(r"run as root|expected aarch64|not a Jetson", done.stderr)
    assert done.stdout == ""


def test_units_are_understood_by_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    assert run("install.sh", "--root", str(tmp_path)).returncode == 0
    for tool in ("mkdir", "mount", "umount"):
        (tmp_path / "usr/bin").mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", tmp_path / "usr/bin" / tool)
    units = tmp_path / "etc/systemd/system"
    shutil.copy(units / "edge-medgemma-media@.service", units / "edge-medgemma-media@sda1.service")
    for unit in ("edge-medgemma-media@sda1.service", "edge-medgemma-power.service"):
        command = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", unit]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        about = [line for line in checked.stderr.splitlines() if "edge-medgemma" in line]
        # Units of the system itself are not staged.
        about = [line for line in about if "not found" not in line]
        assert about == [], checked.stderr


def test_a_medium_becomes_a_report_named_by_the_clock_alone(
    tmp_path: Path, tiny_engine_directory: Path
) -> None:
    medium = tmp_path / "DOE^JANE"
    shutil.copytree(SCAN, medium)
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edge_medgemma "$@"\n')
    program.chmod(0o755)
    reports = tmp_path / "reports"
    reports.mkdir()
    environment = {"EDGE_MEDGEMMA_PROGRAM": str(program), "EDGE_MEDGEMMA_SLICES": "2"}
    refused = run("triage-media.sh", str(medium), str(reports), **environment)
    assert refused.returncode == 1 and refused.stdout.startswith("failed: ")
    (report,) = reports.iterdir()
    assert "is the demo engine and knows nothing of patients" in (report / "triage.txt").read_text()
    shutil.rmtree(report)

    environment["EDGE_MEDGEMMA_ENGINE"] = str(tiny_engine_directory)
    done = run("triage-media.sh", str(medium), str(reports), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = reports.iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-\w{4}", report.name)
    urgency = json.loads((report / "triage.json").read_text())["urgency"]
    assert (report / "urgency.txt").read_text().strip() == urgency
    assert done.stdout == f"{urgency}: {report}\n"
    assert "JANE" not in (report / "triage.txt").read_text()

    empty = tmp_path / "empty"
    empty.mkdir()
    failed = run("triage-media.sh", str(empty), str(reports), **environment)
    assert failed.returncode == 1
    assert failed.stdout.startswith("failed: ")


def test_the_power_mode_is_recorded_as_json(tmp_path: Path) -> None:
    for name, text in {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/meminfo": "MemTotal: 7654321 kB\nMemAvailable: 6543210 kB\nCmaFree: 200000 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = run("power-mode.sh", "show", JETSON_ROOT=str(tmp_path))
    record = json.loads(done.stdout)
    assert record["model"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert record["cpu_governor"] == "schedutil"
    assert record["gpu_hz"] == "918000000"
    assert (record["memory_kb"], record["contiguous_free_kb"]) == (7654321, 200000)
    assert record["swap_kb"] is None


def test_the_maximum_mode_is_looked_up_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 1 kB\n")
    missing = run("power-mode.sh", "set", "maxn", "--dry-run", JETSON_ROOT=str(tmp_path))
    assert missing.returncode == 1
    assert "nvpmodel.conf is missing" in missing.stderr
    (tmp_path / "etc" / "nvpmodel.conf").write_text(NVPMODEL_CONF)
    done = run("power-mode.sh", "set", "maxn", "--clocks", "--dry-run", JETSON_ROOT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "+ nvpmodel -m 2\n+ jetson_clocks\n"
    assert run("power-mode.sh", "set", "fast").returncode == 2
