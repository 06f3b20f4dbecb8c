"""Machines as recorded file trees: a laptop, a Jetson, and one that tells nothing."""

import time
from pathlib import Path

import pytest

from edge_medgemma.runtime.profiling.machine import read_machine
from edge_medgemma.runtime.profiling.power import find_power_readers
from edge_medgemma.runtime.thermal import Thermal, has_throttled, read_thermal


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    rapl, cpu = "sys/class/powercap/intel-rapl:0", "sys/devices/system/cpu/cpu0"
    return write(
        tmp_path,
        {
            f"{rapl}/name": "package-0\n",
            f"{rapl}/energy_uj": "9000000\n",
            f"{rapl}/max_energy_range_uj": "10000000\n",
            "sys/class/powercap/intel-rapl:0:0/name": "core\n",
            f"{cpu}/cpufreq/scaling_governor": "powersave\n",
            f"{cpu}/cpufreq/scaling_cur_freq": "2100000\n",
            f"{cpu}/cpufreq/cpuinfo_max_freq": "4200000\n",
            f"{cpu}/thermal_throttle/core_throttle_count": "3\n",
            f"{cpu}/thermal_throttle/package_throttle_count": "4\n",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone0/temp": "71000\n",
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: A Processor 9000\n",
        },
    )


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    rail = "sys/class/hwmon/hwmon3"
    return write(
        tmp_path,
        {
            f"{rail}/in1_label": "VDD_IN\n",
            f"{rail}/in1_input": "5000\n",
            f"{rail}/curr1_input": "3000\n",
            f"{rail}/in2_label": "VDD_CPU_GPU_CV\n",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48500\n",
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
        },
    )


def test_rapl_counts_over_a_wrap_and_packages_only(laptop: Path) -> None:
    readers = find_power_readers(laptop)
    assert readers.words == "RAPL package-0"
    before = readers.joules()
    (laptop / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("2000000\n")
    assert readers.joules()[0] - before[0] == pytest.approx(3.0)


def test_rapl_that_may_not_be_read_gives_a_reason(
    laptop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def refuse(path: Path, *arguments: str | None) -> str:  # a test that runs as root may read all
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *arguments)

    monkeypatch.setattr(Path, "read_text", refuse)
    readers = find_power_readers(laptop)
    assert readers.readers == ()
    assert readers.words.startswith("not available: no permission to read RAPL; run as root")


def test_jetson_power_is_integrated(jetson: Path) -> None:
    readers = find_power_readers(jetson)
    assert readers.words == "INA3221 VDD_IN"
    before_s, begin, start_s = time.perf_counter(), readers.joules()[0], time.perf_counter()
    time.sleep(0.2)
    stop_s, end, after_s = time.perf_counter(), readers.joules()[0], time.perf_counter()
    readers.close()
    assert 15.0 * (stop_s - start_s) <= end - begin + 1e-9
    assert end - begin <= 15.0 * (after_s - before_s) + 1e-9


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert find_power_readers(tmp_path).words == (
        "not available: no RAPL counters; no VDD_IN rail; NVML is not a file"
    )
    assert read_thermal(tmp_path) == Thermal({}, None, None, None)
    assert read_machine(tmp_path).power_mode == "not available"


def test_thermal_state_of_a_laptop(laptop: Path) -> None:
    assert read_thermal(laptop) == Thermal({"x86_pkg_temp": 71.0}, 2100.0, 4200.0, 7)
    assert read_thermal(laptop).hottest_celsius == 71.0


def test_a_zone_that_is_switched_off_is_left_out(jetson: Path) -> None:
    assert read_thermal(jetson).zones_celsius == {"cpu-thermal": 48.5}


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(7, 7, False), (7, 8, True), (None, 8, None)]
)
def test_throttling(before: int | None, after: int | None, expected: bool | None) -> None:
    states = [Thermal({}, None, None, events) for events in (before, after)]
    assert has_throttled(*states) is expected


def test_machines_by_name(laptop: Path) -> None:
    machine = read_machine(laptop)
    assert machine.processor == "A Processor 9000"
    assert machine.power_mode == "governor powersave"
    assert "onnxruntime" in machine.libraries


def test_a_jetson_by_name(jetson: Path) -> None:
    machine = read_machine(jetson)
    assert machine.processor == "NVIDIA Jetson Orin Nano Developer Kit"
    assert machine.jetson == "# R36 (release), REVISION: 4.3"
