"""Threads by the cores of processors that clinics have, from file trees with what Linux tells of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_medgemma.runtime.topology import (
    CoreKind,
    choose_threads,
    core_kinds,
    core_words,
    default_threads,
)


@dataclass(frozen=True)
class Cores:
    """Like cores of a machine."""

    count: int
    hardware_threads: int = 1
    """Of each."""
    clock_khz: int | None = None
    capacity: int | None = None
    is_atom: bool = False


P_1260, E_1260 = Cores(4, 2, clock_khz=4_700_000), Cores(8, clock_khz=3_400_000, is_atom=True)
MACHINES = {
    "i7-1260P": (P_1260, E_1260),
    "N100": (Cores(4, clock_khz=3_400_000),),
    "Ryzen 5 5600U": (
        Cores(2, 2, clock_khz=4_289_000), Cores(2, 2, clock_khz=4_200_000), Cores(2, 2, clock_khz=4_100_000)
    ),
    "Ryzen AI 9 HX 370": (Cores(4, 2, clock_khz=5_157_000), Cores(8, 2, clock_khz=3_300_000)),
    "Core Ultra 7 155H": (
        Cores(6, 2, clock_khz=4_800_000), Cores(8, clock_khz=3_800_000, is_atom=True),
        Cores(2, clock_khz=2_500_000, is_atom=True),
    ),
    "Jetson Orin Nano": (Cores(6, clock_khz=1_510_400, capacity=1024),),
    "Snapdragon 8cx": (Cores(4, capacity=1024), Cores(4, capacity=404)),
    "Snapdragon 888": (Cores(1, capacity=1024), Cores(3, capacity=871), Cores(4, capacity=322)),
    "a virtual machine": (Cores(2),),
    "a server's half core": (Cores(1, 2),),
}  # fmt: skip

EVERY = "one for each core"
SLOW_TOO = "one for each core, the slow ones as well"
SHARED = "one for each core, whose hardware threads share its arithmetic"
FAST = "one for each of the {} fast cores; the {} slow ones would hold them up"


def draw(root: Path, machine: Iterable[Cores]) -> set[int]:
    """Write the machine's tree; its CPUs."""
    cpu, atoms = 0, []
    for kind in machine:
        for _ in range(kind.count):
            siblings = list(range(cpu, cpu + kind.hardware_threads))
            for one in siblings:
                folder = root / f"sys/devices/system/cpu/cpu{one}"
                (folder / "topology").mkdir(parents=True)
                listed = f"{siblings[0]}-{siblings[-1]}" if len(siblings) > 1 else f"{one}"
                (folder / "topology/core_cpus_list").write_text(listed + "\n")
                if kind.clock_khz:
                    (folder / "cpufreq").mkdir()
                    (folder / "cpufreq/cpuinfo_max_freq").write_text(f"{kind.clock_khz}\n")
                if kind.capacity:
                    (folder / "cpu_capacity").write_text(f"{kind.capacity}\n")
                atoms += [one] if kind.is_atom else []
            cpu = siblings[-1] + 1
    if atoms:
        (root / "sys/devices/cpu_atom").mkdir()
        (root / "sys/devices/cpu_atom/cpus").write_text(f"{atoms[0]}-{atoms[-1]}\n")
    return set(range(cpu))


@pytest.mark.parametrize(
    ("name", "threads", "reason"),
    [
        ("i7-1260P", 12, SLOW_TOO),
        ("N100", 4, EVERY),
        ("Ryzen 5 5600U", 6, SHARED),
        ("Ryzen AI 9 HX 370", 12, SLOW_TOO),
        ("Core Ultra 7 155H", 6, FAST.format(6, 10)),
        ("Jetson Orin Nano", 6, EVERY),
        ("Snapdragon 8cx", 4, FAST.format(4, 4)),
        ("Snapdragon 888", 4, FAST.format(4, 4)),
        ("a virtual machine", 2, EVERY),
        ("a server's half core", 1, SHARED),
    ],
)
def test_threads_and_why(name: str, threads: int, reason: str, tmp_path: Path) -> None:
    chosen = choose_threads(tmp_path, draw(tmp_path, MACHINES[name]), quota=1000)
    assert (chosen.threads, chosen.reason) == (threads, reason)


def test_kinds_of_cores(tmp_path: Path) -> None:
    cpus = draw(tmp_path, MACHINES["i7-1260P"])
    kinds = core_kinds(tmp_path, cpus)
    assert [(kind.cores, kind.hardware_threads) for kind in kinds] == [(4, 8), (8, 8)]
    assert kinds[1].speed == pytest.approx(3.4 / 4.7 / 2)
    assert core_words(kinds) == (
        "4 performance cores of 8 hardware threads, 8 efficiency cores at 36 % of their speed"
    )


@pytest.mark.parametrize(
    ("allowed", "threads"),
    [({0}, 1), ({0, 1}, 1), ({0, 1, 2}, 2), ({1, 2, 5}, 3), (set(range(8, 16)), 8), ({0, 8}, 1)],
)
def test_affinity_leaves_cores_out(allowed: set[int], threads: int, tmp_path: Path) -> None:
    """The first hardware thread of a core or the second, or efficiency cores alone."""
    draw(tmp_path, MACHINES["i7-1260P"])
    assert choose_threads(tmp_path, allowed, quota=1000).threads == threads


@pytest.mark.parametrize(
    ("quota", "threads", "reason"),
    [
        (0.5, 1, "as the CPU quota of 0.5 cores allows"),
        (2.5, 3, "as the CPU quota of 2.5 cores allows"),
        (4.0, 4, EVERY),
    ],
)
def test_a_quota_is_kept(quota: float, threads: int, reason: str, tmp_path: Path) -> None:
    chosen = choose_threads(tmp_path, draw(tmp_path, MACHINES["N100"]), quota)
    assert (chosen.threads, chosen.reason) == (threads, reason)


@pytest.mark.parametrize("text", ["", "x", "0-", "\ufffd"])
def test_a_machine_that_does_not_tell(text: str, tmp_path: Path) -> None:
    cpus = draw(tmp_path, MACHINES["N100"])
    (tmp_path / "sys/devices/system/cpu/cpu3/topology/core_cpus_list").write_text(text)
    chosen = choose_threads(tmp_path, cpus)
    assert chosen.kinds == () and chosen.threads >= 1
    assert core_words(chosen.kinds) == "the system does not report its cores"


def test_a_clock_that_one_core_does_not_tell_counts_for_none(tmp_path: Path) -> None:
    cpus = draw(tmp_path, (Cores(2, clock_khz=4_000_000), Cores(2, clock_khz=1_000_000)))
    assert choose_threads(tmp_path, cpus, quota=1000).threads == 2
    (tmp_path / "sys/devices/system/cpu/cpu3/cpufreq/cpuinfo_max_freq").unlink()
    assert core_kinds(tmp_path, cpus) == (CoreKind(4, 4, 1.0),)


def test_this_machine_has_threads() -> None:
    assert default_threads() >= 1
