"""Which GPUs a CUDA library has kernels for, read from a file laid out as fatbinary_section.h says."""

import struct
from pathlib import Path

import pytest

from edge_medgemma.runtime.backends import probe
from edge_medgemma.runtime.backends.cuda.device import DeviceProperties
from edge_medgemma.runtime.backends.cuda.fat_binary import Kernels, read_kernels
from edge_medgemma.runtime.errors import DependencyError, ProviderError

PTX, ELF = 1, 2
MAGIC = b"\x50\xed\x55\xba"

ORIN = DeviceProperties("Orin", (8, 7), 13020, 0, 0, is_integrated=True)


def entry(kind: int, architecture: int, blob: bytes) -> bytes:
    """Kind and version, sizes of header and payload, then the architecture at byte 28."""
    header = struct.pack("<HHIQ", kind, 0x101, 64, len(blob)) + bytes(12)
    return (header + struct.pack("<I", architecture)).ljust(64, b"\0") + blob


def fat_binary(*entries: bytes) -> bytes:
    joined = b"".join(entries)
    return MAGIC + struct.pack("<HHQ", 1, 16, len(joined)) + joined


def test_the_architectures_of_every_fat_binary_are_found(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    first = fat_binary(entry(ELF, 80, b"code" * 9), entry(ELF, 89, b"x"), entry(PTX, 90, b".ptx"))
    second = fat_binary(entry(ELF, 120, b""))
    by_chance = MAGIC + b"\xff" * 30
    library.write_bytes(b"\x7fELF" + first + by_chance + b"between" + second + MAGIC)
    assert read_kernels(library) == Kernels(frozenset({80, 89, 120}), frozenset({90}))
    library.write_bytes(b"no kernels at all")
    assert read_kernels(library) == Kernels(frozenset(), frozenset())


@pytest.mark.parametrize(
    ("capability", "runs"),
    [((7, 5), False), ((8, 0), True), ((8, 6), True), ((9, 0), False), ((12, 1), True)],
)
def test_compiled_kernels_run_on_later_minor_versions(
    capability: tuple[int, int], runs: bool
) -> None:
    assert Kernels(frozenset({80, 120}), frozenset()).run_on(capability) is runs


def test_portable_kernels_run_on_everything_later() -> None:
    kernels = Kernels(frozenset(), frozenset({90}))
    assert kernels.run_on((9, 0)) and kernels.run_on((12, 0)) and not kernels.run_on((8, 9))


def test_a_device_without_kernels_is_refused_before_its_first_operator() -> None:
    probe.check_kernels(Kernels(frozenset({86}), frozenset()), ORIN)
    with pytest.raises(ProviderError, match=r"capability 8\.9, 9\.0; Orin has 8\.7; use TensorRT"):
        probe.check_kernels(Kernels(frozenset({89, 90}), frozenset()), ORIN)


def test_mixed_packages_are_refused_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(probe, "installed_onnxruntimes", lambda: both)
    with pytest.raises(DependencyError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        probe.require_cuda_kernels()
