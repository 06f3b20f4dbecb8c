"""Temperature, clocks and throttling, as the Linux kernel tells them under /sys."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HOST = Path("/")
"""Root of the file tree that is read; tests read recorded ones."""


@dataclass(frozen=True, slots=True)
class Thermal:
    """A moment's state; what a machine does not tell is empty or None."""

    zones_celsius: dict[str, float]
    """Temperature by type of the thermal zone, the hottest of each."""
    clock_mhz: float | None
    """Mean over the cores."""
    maximum_clock_mhz: float | None
    throttle_events: int | None
    """Times that cores and packages were slowed for heat since the machine started; Intel only."""

    @property
    def hottest_celsius(self) -> float | None:
        """Highest temperature of all zones."""
        return max(self.zones_celsius.values(), default=None)


def read_thermal(root: Path = HOST) -> Thermal:
    """The present state of the machine whose file tree begins at `root`."""
    cores = root / "sys/devices/system/cpu"
    clocks = _numbers(cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    limits = _numbers(cores.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq"))
    events = _numbers(cores.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    return Thermal(
        zones_celsius=_zones(root),
        clock_mhz=sum(clocks) / len(clocks) / 1e3 if clocks else None,
        maximum_clock_mhz=max(limits) / 1e3 if limits else None,
        throttle_events=int(sum(events)) if events else None,
    )


@dataclass(frozen=True, slots=True)
class Throttling:
    """What tells that cores were held back for heat; a few small files, where `Thermal` reads them all."""

    events: int | None
    """As `Thermal.throttle_events`."""
    cooling_steps: int | None
    """Steps by which the kernel holds cores back at this moment, 0 for none; Arm boards and ACPI."""


def read_throttling(root: Path = HOST) -> Throttling:
    """The present state of the machine whose file tree begins at `root`."""
    events = _numbers(
        (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    )
    steps = _numbers(
        device / "cur_state"
        for device in (root / "sys/class/thermal").glob("cooling_device*")
        if _is_of_cores(device)
    )
    return Throttling(int(sum(events)) if events else None, int(max(steps)) if steps else None)


def was_slowed(before: Throttling, after: Throttling) -> bool:
    """Whether heat slowed the cores between two moments, as far as the machine tells."""
    counted = None not in (before.events, after.events) and before.events != after.events
    return counted or bool(before.cooling_steps) or bool(after.cooling_steps)


def heat_words(now: Throttling) -> str:
    """Whether heat slows the cores, or did since the machine started."""
    if now.events is None and now.cooling_steps is None:
        return "not known: this system does not report whether heat slows the cores"
    if now.cooling_steps:
        return "cores are held back for heat at this moment"
    if now.events:
        return f"cores were slowed for heat since the machine started ({now.events} events)"
    return "no core was slowed for heat"


def has_throttled(before: Thermal, after: Thermal) -> bool | None:
    """Whether a throttle counter moved; None where there are no counters."""
    if before.throttle_events is None or after.throttle_events is None:
        return None
    return after.throttle_events > before.throttle_events


def _zones(root: Path) -> dict[str, float]:
    zones: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        try:
            name = (zone / "type").read_text().strip()
            celsius = int((zone / "temp").read_text()) / 1e3
        except (OSError, ValueError):  # Jetson refuses to read zones that are powered off
            continue
        zones[name] = max(celsius, zones.get(name, celsius))
    return zones


def _is_of_cores(device: Path) -> bool:
    """Whether a cooling device lowers the clock of cores: fans are cooling devices as well."""
    try:
        kind = (device / "type").read_text().strip()
    except OSError:
        return False
    return kind == "Processor" or kind.removeprefix("thermal-").startswith("cpufreq-")


def _numbers(paths: Iterable[Path]) -> list[float]:
    found = []
    for path in paths:
        try:
            found.append(float(path.read_text()))
        except (OSError, ValueError):
            continue
    return found
