"""Cores and memory of the host that this process may use; affinity and control groups count."""

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")

_KIND_OF_CORE = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
)  # fmt: skip
"""What /proc/cpuinfo says of a core on x86 and on Arm, but for its number and clock."""


def logical_cores() -> frozenset[int]:
    """Numbers of the CPUs that this process may run on: its affinity."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Number of CPUs, at least one: the process's affinity, and the CPU quota rounded up."""
    cores = len(logical_cores())
    quota = cgroup_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def available_bytes() -> int:
    """Memory that this process may hold in all, what it holds already included.

    The lesser of what the system calls available and of the limits of the control groups.
    """
    held = psutil.Process().memory_info()
    private = held.rss - getattr(held, "shared", 0)  # mapped files are in `available` already
    available = int(psutil.virtual_memory().available + private)
    limit = cgroup_memory_bytes()
    return available if limit is None else min(available, limit)


def cgroup_memory_bytes(
    membership: Path = CGROUP_MEMBERSHIP, root: Path = CGROUP_ROOT
) -> int | None:
    """Lowest memory limit of the control groups that hold this process; None without a limit."""
    limits: list[int] = []
    for group in _cgroups("memory", membership, root):
        limits += _numbers(group / "memory.max") or _numbers(group / "memory.limit_in_bytes")
    return min(limits, default=None)


def cgroup_cores(membership: Path = CGROUP_MEMBERSHIP, root: Path = CGROUP_ROOT) -> float | None:
    """Lowest CPU quota, in cores, of the control groups that hold this process; None without one."""
    quotas: list[float] = []
    for group in _cgroups("cpu", membership, root):
        numbers = _numbers(group / "cpu.max") or [
            *_numbers(group / "cpu.cfs_quota_us"),
            *_numbers(group / "cpu.cfs_period_us"),
        ]
        if len(numbers) == 2 and min(numbers) > 0:  # a quota of -1 is none
            quotas.append(numbers[0] / numbers[1])
    return min(quotas, default=None)


def processor_name(root: Path = Path("/")) -> str:
    """Name of the board or else of the processor; `root` is where the file tree begins."""
    for path, key in (("proc/device-tree/model", ""), ("proc/cpuinfo", "model name")):
        try:
            text = (root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if not key:
            return text.rstrip("\0\n")
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return platform.processor() or "unknown"


def machine_identity(root: Path = Path("/")) -> str:
    """Kinds of its cores with microcode, system and machine: where code that worked once works again.

    A home folder may be shared by machines or copied to another.
    """
    words = [platform.machine(), platform.system(), platform.release(), platform.version()]
    kinds: set[str] = set()
    try:
        words.append((root / "etc/machine-id").read_text(encoding="ascii", errors="replace"))
    except OSError:
        words.append("")
    try:
        cores = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for core in cores.split("\n\n"):
            lines = (line.partition(":") for line in core.splitlines())
            kind = {key.strip(): value.strip() for key, _, value in lines}
            kinds.add(" ".join(f"{key}={kind[key]}" for key in _KIND_OF_CORE if key in kind))
    except OSError:
        kinds.add(platform.processor())
    return "\n".join([*words, *sorted(kinds)])


def _cgroups(controller: str, membership: Path, root: Path) -> Iterator[Path]:
    """Folders of the control groups that hold this process, the innermost first.

    Version 2 has one tree, version 1 one for each controller (Documentation/admin-guide/cgroup-v2.rst,
    cgroup-v1/cgroups.rst). A container may see its own group as the root.
    """
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        tree = root / controller if controllers else root
        group = tree / name.lstrip("/")
        yield from (one for one in (group, *group.parents) if one.is_relative_to(tree))


def _numbers(path: Path) -> list[int]:
    """Numbers in a file; none where it is missing or says `max`, which is no limit."""
    try:
        return [int(word) for word in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []
