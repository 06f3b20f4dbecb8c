"""Damaged .safetensors files, each of which safetensors itself refuses too."""

import json

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

from edge_medgemma.export.checkpoint.safetensors_file import open_safetensors, read_header
from edge_medgemma.runtime.errors import CheckpointError


def write(path, header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(raw) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + raw + data)


def tensor(start, stop, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("header", "data", "length", "message"),
    [
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12, None, "'b' does not begin where"),
        ({"a": tensor(0, 8), "b": tensor(12, 20)}, 20, None, "'b' does not begin where"),
        ({"a": tensor(0, 8)}, 9, None, "1 bytes after the last tensor"),
        ({"a": tensor(0, 8)}, 7, None, "it ends before tensor 'a' does"),
        ({"a": tensor(8, 0)}, 8, None, "does not parse"),
        ({"a": tensor(-8, 0)}, 8, None, "does not parse"),
        ({"a": tensor(0, 8, (2.0,))}, 8, None, "does not parse"),
        ({"a": tensor(0, 8, (True, 2))}, 8, None, "does not parse"),
        ({"a": {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}}, 8, None, "does not parse"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, None, "does not parse"),
        ({"a": None}, 0, None, "does not parse"),
        (b"[]", 0, None, "does not parse"),
        (b"{", 0, None, "does not parse"),
        (b"[" * 100_000, 0, None, "does not parse"),
        ({}, 0, 2**62, "it ends within its header"),
        (b"{}" + b" " * 10, 0, 200_000_000, "it ends within its header"),
    ],
)
def test_damage_is_refused(tmp_path, header, data, length, message):
    path = tmp_path / "model.safetensors"
    write(path, header, bytes(data), length)
    with pytest.raises(CheckpointError, match=rf"'model\.safetensors' is damaged: .*{message}"):
        open_safetensors(path)
    with pytest.raises(safetensors.SafetensorError), safetensors.safe_open(path, "np") as file:
        file.keys()


def test_a_name_that_stands_twice(tmp_path):
    path = tmp_path / "model.safetensors"
    entry = json.dumps(tensor(0, 8))
    write(path, f'{{"a": {entry}, "a": {entry}}}'.encode(), bytes(8))
    with pytest.raises(CheckpointError, match="a name stands in it twice"):
        open_safetensors(path)


def test_a_shape_that_its_bytes_do_not_fill(tmp_path):
    path = tmp_path / "model.safetensors"
    write(path, {"a": tensor(0, 8, (3,))}, bytes(8))
    with pytest.raises(CheckpointError, match="the place of tensor 'a' does not fit its shape"):
        open_safetensors(path)


def test_every_dtype_has_a_place_and_only_floats_a_value(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"ids": np.arange(3), "empty": np.zeros((0, 4), np.float32)}, path)
    assert read_header(path)["ids"].dtype == "I64"
    assert read_header(path)["empty"].shape == (0, 4)
    with pytest.raises(CheckpointError, match=r"'ids' .* stored as I64; expected F32, F16 or BF16"):
        open_safetensors(path)
