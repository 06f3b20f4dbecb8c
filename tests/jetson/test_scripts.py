"""The Jetson's own scripts, as far as no Jetson is needed: run dry and fed recordings."""

import json
import os
import subprocess
from pathlib import Path

JETSON = Path(__file__).resolve().parents[2] / "jetson"

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


def test_the_installation_is_the_boxs_for_a_jetson(tmp_path: Path) -> None:
    done = run("install.sh", "--root", str(tmp_path), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "--system-site-packages" in done.stdout  # TensorRT's module is JetPack's
    assert "[cpu,clinic,exchange,pdf,tensorrt]" in done.stdout
    assert "gpu.conf" in done.stdout
    assert "usermod --append --groups video,render edge-medgemma" in done.stdout


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
