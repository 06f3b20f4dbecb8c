import os
from pathlib import Path

from edge_medgemma.runtime.files import new_file
from edge_medgemma.runtime.store.entries import (
    ABANDONED_AFTER_S,
    UNFINISHED,
    cache_entries,
    delete_unused,
)


def test_a_folder_counts_as_one_entry_with_its_newest_file(tmp_path: Path) -> None:
    (tmp_path / "engine" / "devices").mkdir(parents=True)
    for name, time_s in (("old", 1), ("devices/new", 1000)):
        (tmp_path / "engine" / name).write_bytes(bytes(10))
        os.utime(tmp_path / "engine" / name, (time_s, time_s))
    (tmp_path / "oldest.features").write_bytes(bytes(5))
    os.utime(tmp_path / "oldest.features", (2, 2))
    file, folder = cache_entries(tmp_path)
    assert (file.kind, file.num_files, file.bytes) == ("features", 1, 5)
    assert (folder.path.name, folder.num_files, folder.bytes) == ("engine", 2, 20)
    assert file.unused_s - folder.unused_s > 990
    assert delete_unused([file, folder]) == [file, folder]
    assert list(tmp_path.iterdir()) == []


def test_what_was_used_lately_stays(tmp_path: Path) -> None:
    for name in ("new.features", "old.features"):
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / "old.features", (1, 1))
    (deleted,) = delete_unused(cache_entries(tmp_path), 60)
    assert deleted.path.name == "old.features"
    assert [path.name for path in tmp_path.iterdir()] == ["new.features"]


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    (tmp_path / ".engine.tmp").mkdir()
    (tmp_path / ".engine.tmp" / "decoder.data").write_bytes(bytes(10))
    (tmp_path / ".killed.prefix.x").write_bytes(bytes(10))
    with new_file(tmp_path / "a.prefix") as file:
        file.write(bytes(10))
        assert {entry.kind for entry in cache_entries(tmp_path)} == {UNFINISHED}
        (deleted,) = delete_unused(cache_entries(tmp_path))
        assert deleted.path.name == ".killed.prefix.x"
    old = (tmp_path / ".engine.tmp" / "decoder.data").stat().st_mtime - ABANDONED_AFTER_S - 1
    os.utime(tmp_path / ".engine.tmp" / "decoder.data", (old, old))
    names = {entry.path.name for entry in delete_unused(cache_entries(tmp_path))}
    assert names == {".engine.tmp", "a.prefix"}
