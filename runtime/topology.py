"""Cores by kind, as the Linux kernel tells them under /sys, and how many threads to compute with.

Every library here ends a layer when its slowest thread does. So many threads are started that even work
split evenly among them ends no later than on the fast cores alone.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edge_medgemma.runtime.host import cgroup_cores, logical_cores, usable_cores

ROOT = Path("/")

SAME_KIND = 0.8
"""Cores of one kind differ by less: some of them are allowed a higher clock than their neighbours."""

EFFICIENCY_VECTORS = 0.5
"""Vector arithmetic in a cycle of an Intel efficiency core, of that of a performance core: its units
are half as wide (Intel 64 and IA-32 Architectures Optimization Reference Manual, Gracemont)."""


@dataclass(frozen=True, slots=True)
class CoreKind:
    """Cores of a machine that are about equally fast, and that this process may use."""

    cores: int
    """Physical ones."""
    hardware_threads: int
    """More than cores where each runs two."""
    speed: float
    """Of the slowest, relative to the fastest core of the machine."""


@dataclass(frozen=True, slots=True)
class ThreadChoice:
    """How many threads compute where nobody says how many."""

    threads: int
    reason: str
    """The end of a sentence: `one for each core`."""
    kinds: tuple[CoreKind, ...]
    """The fastest first; empty where the system does not tell."""


@cache
def default_threads() -> int:
    """Threads to compute with on this machine, at least one."""
    return choose_threads().threads


def choose_threads(
    root: Path = ROOT, allowed: Collection[int] | None = None, quota: float | None = None
) -> ThreadChoice:
    """The choice for a machine.

    Args:
        root: where the file tree of the machine begins
        allowed: numbers of the CPUs that may be used; None: those of this process's affinity
        quota: cores' worth of time; None: that of this process's control groups
    """
    kinds = core_kinds(root, logical_cores() if allowed is None else allowed)
    quota = cgroup_cores() if quota is None else quota
    if not kinds:
        return ThreadChoice(usable_cores(), "one for each CPU that the system names", ())
    counts = [sum(kind.cores for kind in kinds[: place + 1]) for place in range(len(kinds))]
    even = [count * kind.speed for count, kind in zip(counts, kinds, strict=True)]
    place = max(range(len(kinds)), key=lambda one: (even[one], one))
    threads = counts[place]
    if quota is not None and quota < threads:
        limited = max(1, math.ceil(quota))
        return ThreadChoice(limited, f"as the CPU quota of {quota:g} cores allows", kinds)
    return ThreadChoice(threads, _reason(kinds, place), kinds)


def core_kinds(root: Path, allowed: Collection[int]) -> tuple[CoreKind, ...]:
    """Kinds of the allowed cores, the fastest first; empty where the system does not tell."""
    cores: dict[frozenset[int], float] = {}
    speeds = _speeds(root, allowed)
    for cpu in sorted(allowed):
        siblings = _siblings(root, cpu)
        if siblings is None:
            return ()
        cores[frozenset(siblings & set(allowed)) or frozenset({cpu})] = speeds[cpu]
    kinds: list[list[tuple[float, int]]] = []
    fastest = max(cores.values(), default=1.0)
    for core, speed in sorted(cores.items(), key=lambda one: -one[1]):
        if not kinds or speed < SAME_KIND * kinds[-1][0][0]:
            kinds.append([])
        kinds[-1].append((speed, len(core)))
    return tuple(
        CoreKind(len(kind), sum(count for _, count in kind), kind[-1][0] / fastest)
        for kind in kinds
    )


def core_words(kinds: tuple[CoreKind, ...]) -> str:
    """As `4 performance cores of 8 hardware threads, 8 efficiency cores at 36 % of their speed`."""
    names = ["performance ", *["efficiency "] * len(kinds)] if len(kinds) > 1 else [""]
    words = []
    for name, kind in zip(names, kinds, strict=False):
        one = f"{kind.cores} {name}core{'s' if kind.cores != 1 else ''}"
        if kind.hardware_threads > kind.cores:
            one += f" of {kind.hardware_threads} hardware threads"
        words.append(
            one if kind is kinds[0] else f"{one} at {100 * kind.speed:.0f} % of their speed"
        )
    return ", ".join(words) or "the system does not report its cores"


def _reason(kinds: tuple[CoreKind, ...], place: int) -> str:
    used, left = kinds[: place + 1], kinds[place + 1 :]
    if left:
        return (
            f"one for each of the {sum(kind.cores for kind in used)} fast cores; the "
            f"{sum(kind.cores for kind in left)} slow ones would hold them up"
        )
    if len(used) > 1:
        return "one for each core, the slow ones as well"
    if used[0].hardware_threads > used[0].cores:
        return "one for each core, whose hardware threads share its arithmetic"
    return "one for each core"


def _speeds(root: Path, allowed: Collection[int]) -> dict[int, float]:
    """Speed of each CPU in numbers of arithmetic, in units of no meaning; all 1 where it is not told."""
    folder = root / "sys/devices/system/cpu"
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = {cpu: _number(folder / f"cpu{cpu}" / name) for cpu in allowed}
        if speeds and all(speeds.values()):
            break
    else:
        speeds = dict.fromkeys(allowed, 1.0)
    slow = _cpu_list(root / "sys/devices/cpu_atom/cpus") or set()
    return {
        cpu: speed * (EFFICIENCY_VECTORS if cpu in slow else 1) for cpu, speed in speeds.items()
    }


def _siblings(root: Path, cpu: int) -> set[int] | None:
    """CPUs of the same core, this one among them."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return _cpu_list(folder / "core_cpus_list") or _cpu_list(folder / "thread_siblings_list")


def _cpu_list(path: Path) -> set[int] | None:
    """CPUs of a file like `0-3,8`; None where it is missing or is none."""
    try:
        cpus: set[int] = set()
        for part in path.read_text(encoding="ascii").strip().split(","):
            first, dash, last = part.partition("-")
            cpus.update(range(int(first), int(last if dash else first) + 1))
    except (OSError, ValueError):
        return None
    return cpus


def _number(path: Path) -> float:
    """A file's number; 0 where it is missing or is none."""
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0
