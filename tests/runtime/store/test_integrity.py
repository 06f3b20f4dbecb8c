"""A large engine is hashed once; the stamp never hides a change."""

from pathlib import Path

import pytest

from edge_medgemma.runtime import manifest as manifest_module
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.store import integrity
from edge_medgemma.runtime.store.integrity import check_engine
from edge_medgemma.runtime.store.places import Place


def test_stamp_saves_the_second_hash_and_notices_a_change(
    tiny_engine_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    directory = Path(shutil.copytree(tiny_engine_directory, tmp_path / "engine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(integrity, "ALWAYS_HASHED_BYTES", 0)
    hashed: list[str] = []
    original = manifest_module.file_sha256

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return original(path)

    monkeypatch.setattr(manifest_module, "file_sha256", counting)
    manifest = load_manifest(directory)
    check_engine(directory, manifest)
    assert sorted(hashed) == sorted(manifest.files)
    assert len(list(Place.CHECKED.folder.iterdir())) == 1
    hashed.clear()
    check_engine(directory, manifest)
    assert hashed == []
    path = directory / "embedding.data"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(EngineError, match="altered"):
        check_engine(directory, manifest)
