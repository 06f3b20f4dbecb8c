"""A verdict is believed only where and as it was written."""

from pathlib import Path

import pytest

from edge_medgemma.runtime.documents import dump_sealed
from edge_medgemma.runtime.store.verdicts import CachedVerdict, Verdict

FAULT = Verdict("it dies of SIGILL", "kernels")


@pytest.fixture
def kept(tmp_path: Path) -> CachedVerdict:
    kept = CachedVerdict(tmp_path / "trials", "this machine", "amx")
    kept.write(FAULT)
    return kept


def test_it_is_that_of_the_same_dependencies(tmp_path, kept) -> None:
    assert kept.read() == FAULT
    assert CachedVerdict(tmp_path / "trials", "another machine", "amx").read() is None
    assert CachedVerdict(tmp_path / "trials", "this machine", "avx2").read() is None


@pytest.mark.parametrize(
    "alter",
    [
        lambda text: text[:-3],
        lambda text: text.replace("SIGILL", "SIGBUS"),
        lambda text: text.replace('"it dies of SIGILL"', "null"),
        lambda _: dump_sealed({"verdict": {"fault": None, "culprit": ""}, "key": "0" * 64}),
        lambda _: "",
        lambda _: "[" * 100_000,
        lambda _: "\ufffd",
    ],
)
def test_a_damaged_file_is_absent_and_replaced(tmp_path, kept, alter) -> None:
    (path,) = (tmp_path / "trials").iterdir()
    path.write_text(alter(path.read_text()))
    assert kept.read() is None
    kept.write(Verdict(None))
    assert kept.read() == Verdict(None)


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path) -> None:
    (tmp_path / "trials").write_text("a file in the folder's place")
    kept = CachedVerdict(tmp_path / "trials", "this machine", "amx")
    kept.write(FAULT)
    assert kept.read() is None


def test_a_folder_that_others_can_write_is_not_believed(tmp_path, kept) -> None:
    (tmp_path / "trials").chmod(0o777)
    assert kept.read() is None
