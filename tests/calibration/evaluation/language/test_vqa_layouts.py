import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from support.vqa_datasets import write_pathvqa, write_slake, write_vqa_rad

from edge_medgemma.calibration.evaluation.language.vqa_answers import require_pictures
from edge_medgemma.calibration.evaluation.language.vqa_layouts import (
    READERS,
    read_pathvqa,
    read_slake,
    read_vqa_rad,
)
from edge_medgemma.runtime.errors import DatasetError


def test_vqa_rad_splits_by_phrase_type_and_keeps_numbers_as_text(tmp_path: Path) -> None:
    folder = write_vqa_rad(tmp_path)
    dataset = read_vqa_rad(folder, "test")
    assert [one.key for one in dataset.questions] == ["0", "1", "2"]
    assert [one.is_closed for one in dataset.questions] == [True, False, True]
    assert dataset.questions[1].reference == "3"
    assert dataset.questions[1].attributes == {"organ": "chest", "kind": "COUNT"}
    assert len(read_vqa_rad(folder, "train").questions) == 1
    assert len(read_vqa_rad(folder, "all").questions) == 4
    require_pictures(dataset)


def test_slake_takes_one_language_and_says_what_it_left(tmp_path: Path) -> None:
    dataset = read_slake(write_slake(tmp_path), "test")
    assert len(dataset.questions) == 4
    assert dataset.notes == ("1 question in another language than en left out",)
    assert dataset.questions[1].attributes["modality"] == "ct"
    assert [one.key for one in read_slake(tmp_path, "test", "zh").questions] == ["2"]
    assert len(read_slake(tmp_path, "test", "all").questions) == 5


def test_pathvqa_reads_the_authors_pickle(tmp_path: Path) -> None:
    dataset = read_pathvqa(write_pathvqa(tmp_path), "test")
    assert [one.is_closed for one in dataset.questions] == [False, True]
    assert [one.attributes["kind"] for one in dataset.questions] == ["where", "yes/no"]
    assert dataset.questions[0].picture == tmp_path / "images" / "test" / "test_0001.jpg"


class _Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_names_a_function_is_refused_and_not_run(
    tmp_path: Path, protocol: int
) -> None:
    folder = write_pathvqa(tmp_path / "pvqa")
    harmed = tmp_path / "harmed"
    row = {"image": "test_0001", "question": "is it?", "answer": _Malice(harmed)}
    (folder / "qas/test/test_qa.pkl").write_bytes(pickle.dumps([row], protocol))
    with pytest.raises(DatasetError, match=r"it names .*mkdir.*save its rows as JSON"):
        read_pathvqa(folder, "test")
    assert not harmed.exists()


def test_a_pickle_of_arrays_is_refused(tmp_path: Path) -> None:
    folder = write_pathvqa(tmp_path)
    (folder / "qas/test/test_qa.pkl").write_bytes(pickle.dumps(np.zeros(3)))
    with pytest.raises(DatasetError, match="not a pickle of plain data"):
        read_pathvqa(folder, "test")


def test_pathvqa_rows_may_be_json(tmp_path: Path) -> None:
    folder = write_pathvqa(tmp_path)
    table = folder / "qas/test/test_qa.pkl"
    rows = pickle.loads(table.read_bytes())
    table.with_suffix(".json").write_text(json.dumps(rows))
    expected = read_pathvqa(folder, "test").questions
    table.unlink()
    assert read_pathvqa(folder, "test").questions == expected


def test_parquet_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"parquet, which is not read; take its pickles"):
        read_pathvqa(tmp_path, "test")


@pytest.mark.parametrize("layout", READERS)
def test_a_folder_one_level_off_is_named(tmp_path: Path, layout: str) -> None:
    write = {"vqa-rad": write_vqa_rad, "slake": write_slake, "pathvqa": write_pathvqa}[layout]
    folder = write(tmp_path / "outer" / "inner")
    with pytest.raises(DatasetError, match="inner': give that folder"):
        READERS[layout](folder.parent, "test")
    (folder / "deeper").mkdir()
    with pytest.raises(DatasetError, match=r"give that folder|give the dataset's own folder"):
        READERS[layout](folder / "deeper", "test")
    with pytest.raises(DatasetError, match="is no folder"):
        READERS[layout](tmp_path / "nowhere", "test")


ROW = {
    "q_lang": "en", "question": "a", "answer": "b", "img_name": "x.jpg", "answer_type": "OPEN",
    "modality": "CT", "content_type": "Organ",
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("{}", "no list of questions"),
        ("[1]", "no list of questions"),
        ("[]", "no question of split"),
        ('[{"qid": 1}]', "no 'q_lang'; its fields are qid"),
        (json.dumps([ROW | {"img_name": "../x.jpg"}]), "outside"),
        (json.dumps([ROW | {"img_name": "/x.jpg"}]), "outside"),
        (json.dumps([ROW | {"answer_type": "MAYBE"}]), "expected OPEN or CLOSED"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_refused_by_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "test.json").write_text(content)
    with pytest.raises(DatasetError, match=words) as error:
        read_slake(tmp_path, "test")
    assert "\n" not in str(error.value)


def test_repeated_ids_count_as_questions_of_their_own(tmp_path: Path) -> None:
    folder = write_vqa_rad(tmp_path)
    table = folder / "VQA_RAD Dataset Public.json"
    rows = json.loads(table.read_text())
    for row in rows:
        row["qid"] = 7
    table.write_text(json.dumps(rows))
    dataset = read_vqa_rad(folder, "test")
    assert len({one.key for one in dataset.questions}) == 3
    assert dataset.notes == ("2 questions with an id that another has; each counts",)


def test_missing_pictures_are_counted_before_anything_is_asked(tmp_path: Path) -> None:
    folder = write_slake(tmp_path)
    (folder / "imgs" / "xmlab1" / "source.jpg").unlink()
    with pytest.raises(DatasetError, match="1 of 2 pictures are missing"):
        require_pictures(read_slake(folder, "test"))
