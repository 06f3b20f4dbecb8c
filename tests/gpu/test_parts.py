from pathlib import Path

import pytest
from gpu.parts import PartsError, cut, join, table

FIRST = bytes(range(256)) * 5
SECOND = b"second" * 300


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    for name, contents in (("1-a/first.whl", FIRST), ("2-b/second.whl", SECOND)):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(contents)
    return folder


def test_cut_and_joined_wheels_are_the_same(wheels: Path, tmp_path: Path) -> None:
    manifest = cut(wheels, tmp_path / "parts", 1000)
    sizes = [part.size_bytes for part in manifest.parts]
    assert sizes == [1000, 1000, 1000, 80]
    assert table(manifest).splitlines()[0].endswith("complete after 2 parts")
    assert join(tmp_path / "parts", tmp_path / "joined") == ()
    assert (tmp_path / "joined/first.whl").read_bytes() == FIRST
    assert (tmp_path / "joined/second.whl").read_bytes() == SECOND


def test_the_first_parts_give_the_wheels_that_lie_within_them(wheels: Path, tmp_path: Path) -> None:
    manifest = cut(wheels, tmp_path / "parts", 1000)
    (tmp_path / "parts" / manifest.parts[2].name).unlink()
    missing = join(tmp_path / "parts", tmp_path / "joined")
    assert [wheel.name for wheel in missing] == ["second.whl"]
    assert [path.name for path in (tmp_path / "joined").iterdir()] == ["first.whl"]


def test_a_damaged_part_is_named(wheels: Path, tmp_path: Path) -> None:
    manifest = cut(wheels, tmp_path / "parts", 1000)
    part = tmp_path / "parts" / manifest.parts[1].name
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(PartsError, match="part-001' is damaged; transfer it again"):
        join(tmp_path / "parts", tmp_path / "joined")


def test_no_manifest_and_no_wheels_are_said(tmp_path: Path) -> None:
    with pytest.raises(PartsError, match=r"manifest\.json' is missing; make it with"):
        join(tmp_path, tmp_path / "joined")
    with pytest.raises(PartsError, match="holds no wheels"):
        cut(tmp_path, tmp_path / "parts", 1000)
