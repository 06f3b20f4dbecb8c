"""Energy, where the machine can tell it: RAPL, Jetson's INA3221, NVIDIA's NVML."""

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge_medgemma.runtime.thermal import HOST

SAMPLING_PERIOD_S = 0.05
"""Readers that give power, not energy, are asked this often: tegrastats' fastest useful rate."""

TOTAL_RAIL = "VDD_IN"
"""Input of the whole module; Jetson Orin Developer Guide, "Power monitor"."""


class PowerReader(Protocol):
    """Something that counts energy."""

    name: str

    def joules(self) -> float:
        """Since any fixed moment; differences count."""
        ...

    def close(self) -> None:
        """Stop counting."""
        ...


@dataclass(frozen=True, slots=True)
class PowerReaders:
    """All readers of a machine, and why there are no others."""

    readers: tuple[PowerReader, ...]
    reasons: tuple[str, ...]

    @property
    def words(self) -> str:
        """Names of the readers, or `not available` with the reasons."""
        if self.readers:
            return ", ".join(reader.name for reader in self.readers)
        return "not available: " + "; ".join(self.reasons)

    def joules(self) -> list[float]:
        """Joules of each reader, since any fixed moment."""
        return [reader.joules() for reader in self.readers]

    def close(self) -> None:
        """Stop counting."""
        for reader in self.readers:
            reader.close()


def find_power_readers(root: Path = HOST) -> PowerReaders:
    """The readers of the machine whose file tree begins at `root`."""
    readers: list[PowerReader] = []
    reasons: list[str] = []
    for find in (_find_rapl, _find_ina, _find_nvml):
        found, reason = find(root)
        readers += found
        if reason:
            reasons.append(reason)
    return PowerReaders(tuple(readers), tuple(reasons))


class RaplReader:
    """Energy of one processor package; Linux `powercap`, counters in microjoules that wrap."""

    def __init__(self, zone: Path) -> None:
        self.name = f"RAPL {(zone / 'name').read_text().strip()}"
        self._zone = zone
        self._range_uj = int((zone / "max_energy_range_uj").read_text())
        self._last_uj = self._read_uj()
        self._total_uj = 0

    def joules(self) -> float:
        """Since this reader was made; asked at least once a wrap (minutes)."""
        now_uj = self._read_uj()
        self._total_uj += (now_uj - self._last_uj) % self._range_uj
        self._last_uj = now_uj
        return self._total_uj / 1e6

    def close(self) -> None:
        """Nothing to stop."""

    def _read_uj(self) -> int:
        return int((self._zone / "energy_uj").read_text())


class SampledReader:
    """Energy as the integral of power: current times voltage of one rail, by trapezoids.

    hwmon `in*_input` is in millivolts and `curr*_input` in milliamperes (Linux, sysfs-interface).
    """

    def __init__(self, rail: str, volts: Path, current: Path) -> None:
        self.name = f"INA3221 {rail}"
        self._volts, self._current = volts, current
        self._joules = 0.0
        self._last = time.perf_counter(), self._watts()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def joules(self) -> float:
        """Since this reader was made."""
        with self._lock:
            now_s, watts = time.perf_counter(), self._watts()
            self._joules += (now_s - self._last[0]) * (watts + self._last[1]) / 2
            self._last = now_s, watts
            return self._joules

    def close(self) -> None:
        """End the sampling thread."""
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLING_PERIOD_S):
            self.joules()

    def _watts(self) -> float:
        return int(self._volts.read_text()) * int(self._current.read_text()) / 1e6


class NvmlReader:
    """Energy of one NVIDIA card, in millijoules since its driver was loaded."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self.name = f"NVML GPU {index}"
        self.joules()

    def joules(self) -> float:
        """Since the driver was loaded; Volta and later."""
        millijoules: float = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        return millijoules / 1e3

    def close(self) -> None:
        """Nothing to stop."""


def _find_rapl(root: Path) -> tuple[Sequence[PowerReader], str]:
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    packages = [zone for zone in zones if zone.name.count(":") == 1]
    if not packages:
        return [], "no RAPL counters"
    try:
        return [RaplReader(zone) for zone in packages], ""
    except PermissionError:
        return [], "no permission to read RAPL; run as root"
    except (OSError, ValueError):
        return [], "RAPL counters cannot be read"


def _find_ina(root: Path) -> tuple[Sequence[PowerReader], str]:
    for label in sorted((root / "sys/class/hwmon").glob("hwmon*/in*_label")):
        with contextlib.suppress(OSError, ValueError):
            rail = label.read_text().strip()
            if rail == TOTAL_RAIL:
                number = label.name.removeprefix("in").removesuffix("_label")
                volts = label.with_name(f"in{number}_input")
                return [SampledReader(rail, volts, label.with_name(f"curr{number}_input"))], ""
    return [], f"no {TOTAL_RAIL} rail"


def _find_nvml(root: Path) -> tuple[Sequence[PowerReader], str]:
    if root != HOST:
        return [], "NVML is not a file"
    try:
        import pynvml
    except ImportError:
        return [], "no NVML (from a checkout: pip install '.[power]')"
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return [NvmlReader(pynvml, index) for index in range(count)], ""
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
