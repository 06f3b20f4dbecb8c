"""What an export keeps of its search is used only as this very program wrote it."""

from pathlib import Path

import numpy as np

from edge_medgemma.calibration.resume_store import save_group
from edge_medgemma.export.quantisation import int4_search

ARRAYS = {"scale": np.arange(6, dtype=np.float32), "integers": np.arange(4, dtype=np.uint8)}


def test_no_flipped_bit_changes_a_searched_array(tmp_path: Path) -> None:
    path = tmp_path / "searched.npz"
    save_group(path, ARRAYS, int4_search._identity())
    data = path.read_bytes()
    refused = 0
    for bit in range(0, 8 * len(data), 7):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        kept = int4_search._kept(path)
        refused += kept is None
        assert kept is None or all(np.array_equal(kept[name], ARRAYS[name]) for name in ARRAYS)
    assert refused > len(data) / 4


def test_what_another_program_searched_is_searched_again(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "searched.npz"
    assert int4_search._kept(path) is None
    save_group(path, ARRAYS, int4_search._identity())
    assert int4_search._kept(path) is not None
    monkeypatch.setattr(int4_search, "_identity", lambda: {"code": "another"})
    assert int4_search._kept(path) is None
