"""A journal outlives kills: no row is lost, none stands twice, and another run is not gone on with."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_medgemma.calibration.evaluation.language.journal import Journal
from edge_medgemma.runtime.errors import ResourceError

APPENDING = """
import os, signal, sys
from dataclasses import dataclass
from pathlib import Path
from edge_medgemma.calibration.evaluation.language.journal import Journal

@dataclass
class Row:
    number: int
    text: str

with Journal(Path(sys.argv[1]), {"engine": "a"}, Row) as journal:
    for number in range(len(journal.rows), 30):
        if number == int(sys.argv[2]):
            journal._file.write(b'{"number": 99, "te')  # torn by the kill
            journal._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        journal.append(Row(number, "x" * 50))
"""


@dataclass
class Row:
    number: int
    text: str


def test_ten_kills_leave_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for killed_at in (0, 1, 4, 5, 9, 14, 20, 21, 27, 29):
        done = subprocess.run(
            [sys.executable, "-c", APPENDING, str(path), str(killed_at)], check=False
        )
        assert done.returncode == -9
    subprocess.run([sys.executable, "-c", APPENDING, str(path), "-1"], check=True)
    whole = tmp_path / "whole.jsonl"
    subprocess.run([sys.executable, "-c", APPENDING, str(whole), "-1"], check=True)
    assert path.read_bytes() == whole.read_bytes()
    with Journal(path, {"engine": "a"}, Row) as journal:
        assert [row.number for row in journal.rows] == list(range(30))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"engine": "b"}\n', "another engine"),
        (b'{"engine": "a", "prompt": 1}\n', "another prompt"),
        (b"text\n", "no file of such a run"),
        (b'["a"]\n', "no file of such a run"),
        (b'{"engine": "a"}\n{"number": "x"}\n', "is damaged"),
        (b'{"engine": "a"}\n\x00\n', "is damaged"),
    ],
)
def test_another_file_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    with pytest.raises(ResourceError, match=words):
        Journal(path, {"engine": "a"}, Row)
    assert path.read_bytes() == content


def test_a_file_without_a_whole_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"engi')
    with Journal(path, {"engine": "a"}, Row) as journal:
        journal.append(Row(1, "a"))
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"engine": "a"}, {"number": 1, "text": "a"}]


def test_two_runs_never_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with Journal(path, {"engine": "a"}, Row) as journal:
        journal.append(Row(1, "a"))
        with pytest.raises(ResourceError, match="another run is writing"):
            Journal(path, {"engine": "a"}, Row)
        journal.append(Row(2, "b"))
    with Journal(path, {"engine": "a"}, Row) as journal:
        assert [row.number for row in journal.rows] == [1, 2]
