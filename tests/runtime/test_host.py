"""Limits of a host as recorded file trees, and those of this one."""

import os
from pathlib import Path

import psutil
import pytest

from edge_medgemma.runtime import host
from edge_medgemma.runtime.host import (
    available_bytes,
    cgroup_cores,
    cgroup_memory_bytes,
    machine_identity,
    processor_name,
    usable_cores,
)


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, value in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(value + "\n")
    return root


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/", {"memory.max": "max"}, None),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "700"}, 700),
        ("0::/a/b", {"a/b/memory.max": "300", "a/memory.max": "700"}, 300),
        ("4:memory:/x\n0::/", {"memory/x/memory.limit_in_bytes": "900"}, 900),
        ("4:memory:/x", {"memory/memory.limit_in_bytes": "500"}, 500),
        ("5:cpu:/x", {"x/memory.max": "500"}, None),
    ],
)
def test_memory_limits_of_control_groups(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int | None
) -> None:
    write_tree(tmp_path, {"cgroup": membership})
    root = write_tree(tmp_path / "fs", files)
    assert cgroup_memory_bytes(tmp_path / "cgroup", root) == expected


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("3:cpu,cpuacct:/x", {
            "cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
        }, 0.5),
        ("3:cpuacct:/x", {
            "cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000",
        }, None),
    ],
)  # fmt: skip
def test_cpu_quotas_of_control_groups(
    tmp_path: Path, membership: str, files: dict[str, str], expected: float | None
) -> None:
    write_tree(tmp_path, {"cgroup": membership})
    root = write_tree(tmp_path / "fs", files)
    assert cgroup_cores(tmp_path / "cgroup", root) == expected


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (0.5, 1), (2.5, 3), (64.0, 8)])
def test_cores_are_those_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(host, "cgroup_cores", lambda: quota)
    assert usable_cores() == cores


def test_a_process_may_hold_no_more_than_its_limit_and_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 0 < available_bytes() <= psutil.virtual_memory().total
    monkeypatch.setattr(host, "cgroup_memory_bytes", lambda: 1000)
    assert available_bytes() == 1000


def test_the_board_is_named_before_the_processor(tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: A Processor 9000"})
    assert processor_name(tmp_path) == "A Processor 9000"
    write_tree(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson Orin Nano\0"})
    assert processor_name(tmp_path) == "NVIDIA Jetson Orin Nano"


CORE = """processor\t: {number}
vendor_id\t: GenuineIntel
model\t\t: 154
model name\t: A Processor 9000
microcode\t: {microcode}
cpu MHz\t\t: {clock}
flags\t\t: fpu avx2 {flags}
"""


def cores(microcode: str = "0x42", clock: str = "800.0", flags: str = "avx_vnni") -> str:
    """Of a processor of two cores."""
    same = {"microcode": microcode, "clock": clock, "flags": flags}
    return "\n".join(CORE.format(number=number, **same) for number in range(2))


def test_a_machine_is_the_same_whatever_its_clock(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": cores(), "etc/machine-id": "1a2b"}
    identity = machine_identity(write_tree(tmp_path, files))
    assert (
        machine_identity(write_tree(tmp_path, {"proc/cpuinfo": cores(clock="4700.0")})) == identity
    )


@pytest.mark.parametrize(
    "change",
    [
        {"proc/cpuinfo": cores(microcode="0x43")},
        {"proc/cpuinfo": cores(flags="")},
        {
            "proc/cpuinfo": cores()
            + "\n"
            + CORE.format(number=2, microcode="0x42", clock=1, flags="")
        },
        {"etc/machine-id": "3c4d"},
    ],
)
def test_another_processor_microcode_or_home_is_another_machine(tmp_path: Path, change) -> None:
    files = {"proc/cpuinfo": cores(), "etc/machine-id": "1a2b"}
    identity = machine_identity(write_tree(tmp_path, files))
    assert machine_identity(write_tree(tmp_path, change)) != identity
    assert machine_identity(tmp_path / "nowhere") != identity
