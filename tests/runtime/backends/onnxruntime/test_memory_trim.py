import mmap
from pathlib import Path

import pytest

from edge_medgemma.runtime.backends.onnxruntime.memory_trim import release_mapped

SIZE = 64 * 2**20


def _resident_file_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssFile:")[1].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux only")
def test_pages_that_were_read_are_let_go_and_those_written_to_stay(tmp_path: Path) -> None:
    path = tmp_path / "weights of an engine.data"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    with path.open("rb") as file:
        read = mmap.mmap(file.fileno(), SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ)
        written = mmap.mmap(file.fileno(), SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    assert read[:] == written[:]
    written[5:8] = b"new"
    before = _resident_file_bytes()
    release_mapped(tmp_path)
    assert before - _resident_file_bytes() > 0.9 * SIZE
    assert written[:8] == bytes([0, 1, 2, 3, 4]) + b"new"
    assert read[-256:] == bytes(range(256))
