"""Questions about pictures as VQA-RAD, SLAKE and PathVQA lay them out on a disk."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_medgemma.calibration.evaluation.datasets.collect import counted
from edge_medgemma.calibration.evaluation.language.plain_pickle import load_plain_pickle
from edge_medgemma.calibration.evaluation.language.text_scores import NO, YES, normalised
from edge_medgemma.runtime.errors import DatasetError


@dataclass(frozen=True, slots=True)
class VqaQuestion:
    """One question about one picture."""

    key: str
    """Id in the dataset, or its number in the file from 1."""
    picture: Path
    picture_name: str
    """As the dataset names it."""
    question: str
    reference: str
    is_closed: bool
    """Whether the dataset gives a choice: yes or no, or one of two."""
    attributes: Mapping[str, str]
    """What rows of results are made by: `modality`, `organ`, `kind`, `language`."""


@dataclass(frozen=True, slots=True)
class VqaDataset:
    """Questions of one split."""

    layout: str
    split: str
    sha256: str
    """Of the file of questions; pictures are not in it."""
    questions: tuple[VqaQuestion, ...]
    notes: tuple[str, ...] = ()
    """One sentence each: what was left out, counted."""


def read_vqa_rad(folder: Path, split: str) -> VqaDataset:
    """VQA-RAD: `VQA_RAD Dataset Public.json` beside `VQA_RAD Image Folder/`.

    The test split has the phrase types `test_freeform` and `test_para`: 451 questions, 251 closed.
    The dataset names organs, not modalities.
    """
    file = _require(folder, "VQA_RAD Dataset Public.json")
    data, rows = _json_rows(file)
    questions = []
    for number, row in enumerate(rows, start=1):
        in_test = _text(row, "phrase_type", file, number).lower().startswith("test")
        if split not in ("all", "test" if in_test else "train"):
            continue
        picture = _text(row, "image_name", file, number)
        questions.append(
            VqaQuestion(
                key=str(row.get("qid", number)),
                picture=_inside(file.parent / "VQA_RAD Image Folder", picture),
                picture_name=picture,
                question=_text(row, "question", file, number),
                reference=_text(row, "answer", file, number),
                is_closed=_is_closed(row, file, number),
                attributes={
                    "organ": _text(row, "image_organ", file, number).lower(),
                    "kind": _text(row, "question_type", file, number).upper(),
                },
            )
        )
    return _dataset("vqa-rad", split, data, questions, file)


def read_slake(folder: Path, split: str, language: str = "en") -> VqaDataset:
    """SLAKE: `train.json`, `validate.json`, `test.json` beside `imgs/xmlabN/source.jpg`.

    `language` is `en`, `zh` or `all`.
    """
    names = ("train", "validate", "test") if split == "all" else (split,)
    content, questions, left_out = b"", [], 0
    for name in names:
        file = _require(folder, f"{name}.json")
        data, rows = _json_rows(file)
        content += data
        for number, row in enumerate(rows, start=1):
            spoken = _text(row, "q_lang", file, number).lower()
            if language not in ("all", spoken):
                left_out += 1
                continue
            picture = _text(row, "img_name", file, number)
            questions.append(
                VqaQuestion(
                    key=str(row.get("qid", f"{name} {number}")),
                    picture=_inside(file.parent / "imgs", picture),
                    picture_name=picture,
                    question=_text(row, "question", file, number),
                    reference=_text(row, "answer", file, number),
                    is_closed=_is_closed(row, file, number),
                    attributes={
                        "modality": _text(row, "modality", file, number).lower(),
                        "kind": _text(row, "content_type", file, number).lower(),
                        "language": spoken,
                    },
                )
            )
    notes = (f"{counted(left_out, 'question')} in another language than {language} left out",)
    return _dataset("slake", split, content, questions, file, notes if left_out else ())


def read_pathvqa(folder: Path, split: str) -> VqaDataset:
    """PathVQA: `qas/test/test_qa.pkl` (or .json) of {image, question, answer} and `images/test/NAME.jpg`.

    A pickle may hold plain data alone; any that names a class is refused. Closed questions are those
    whose answer is yes or no.
    """
    names = ("train", "val", "test") if split == "all" else (split.replace("validate", "val"),)
    content, questions = b"", []
    for name in names:
        file = _pathvqa_table(folder, name)
        content += file.read_bytes()
        for number, row in enumerate(_pathvqa_rows(file), start=1):
            question = _text(row, "question", file, number)
            reference = _text(row, "answer", file, number)
            is_closed = normalised(reference) in (YES, NO)
            picture = _text(row, "image", file, number)
            picture = picture if Path(picture).suffix.lower() == ".jpg" else f"{picture}.jpg"
            questions.append(
                VqaQuestion(
                    key=f"{name} {number}",
                    picture=_inside(folder / "images" / name, picture),
                    picture_name=picture,
                    question=question,
                    reference=reference,
                    is_closed=is_closed,
                    attributes={"kind": "yes/no" if is_closed else _first_word(question)},
                )
            )
    return _dataset("pathvqa", split, content, questions, file)


READERS: Mapping[str, Callable[[Path, str], VqaDataset]] = {
    "vqa-rad": read_vqa_rad,
    "slake": read_slake,
    "pathvqa": read_pathvqa,
}

SPLITS = ("test", "train", "validate", "all")


def _dataset(
    layout: str,
    split: str,
    content: bytes,
    questions: Iterable[VqaQuestion],
    file: Path,
    notes: tuple[str, ...] = (),
) -> VqaDataset:
    found = tuple(questions)
    if not found:
        raise DatasetError(f"'{file}' has no question of split '{split}'; try --split all")
    keys = [question.key for question in found]
    if len(set(keys)) < len(keys):
        twice = len(keys) - len(set(keys))
        notes = (*notes, f"{counted(twice, 'question')} with an id that another has; each counts")
        found = tuple(_numbered(found))
    return VqaDataset(layout, split, hashlib.sha256(content).hexdigest(), found, notes)


def _numbered(questions: Iterable[VqaQuestion]) -> Iterable[VqaQuestion]:
    """Questions with a key of their own each: a repeated one gets its place behind it."""
    seen: set[str] = set()
    for place, one in enumerate(questions, start=1):
        key = one.key if one.key not in seen else f"{one.key} ({place})"
        seen.add(one.key)
        yield replace(one, key=key)


def _require(folder: Path, name: str) -> Path:
    """The file of that name in a dataset's folder; says where it is if that is one level off."""
    if (folder / name).is_file():
        return folder / name
    if not folder.is_dir():
        raise DatasetError(
            f"'{folder}' is no folder; give the dataset's folder, which holds '{name}'"
        )
    below = sorted(path for path in folder.glob("*/") if (path / name).is_file())
    near = [*below[:1], *([folder.parent] if (folder.parent / name).is_file() else [])]
    hint = f"it is in '{near[0]}': give that folder" if near else "give the dataset's own folder"
    raise DatasetError(f"'{folder}' does not hold '{name}'; {hint}")


def _pathvqa_table(folder: Path, name: str) -> Path:
    for path in (f"qas/{name}/{name}_qa.pkl", f"qas/{name}/{name}_qa.json"):
        if (folder / path).is_file():
            return folder / path
    if folder.is_dir() and any(folder.rglob("*.parquet")):
        raise DatasetError(
            f"'{folder}' holds PathVQA as parquet, which is not read; take its pickles, or write "
            f"qas/{name}/{name}_qa.json with image, question and answer beside images/{name}/NAME.jpg"
        )
    return _require(folder, f"qas/{name}/{name}_qa.pkl")


def _pathvqa_rows(file: Path) -> list[dict[str, object]]:
    if file.suffix == ".json":
        return _json_rows(file)[1]
    return _checked_rows(load_plain_pickle(file), file)


def _json_rows(file: Path) -> tuple[bytes, list[dict[str, object]]]:
    try:
        data = file.read_bytes()
        return data, _checked_rows(json.loads(data), file)
    except OSError as error:
        raise DatasetError(f"cannot read '{file}': {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"'{file}' is not JSON; take it from the dataset once more") from None


def _checked_rows(content: object, file: Path) -> list[dict[str, object]]:
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DatasetError(f"'{file}' is no list of questions; is --layout right?")
    return content


def _text(row: Mapping[str, object], name: str, file: Path, number: int) -> str:
    """A field as text: some answers of these datasets are numbers."""
    value = row.get(name)
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise DatasetError(
            f"'{file}', question {number}: no '{name}'; its fields are "
            f"{', '.join(map(str, list(row)[:20]))}; is --layout right?"
        )
    return str(value).strip()


def _is_closed(row: Mapping[str, object], file: Path, number: int) -> bool:
    word = _text(row, "answer_type", file, number).upper()
    if word not in ("OPEN", "CLOSED"):
        raise DatasetError(
            f"'{file}', question {number}: answer_type is '{word[:40]}'; expected OPEN or CLOSED"
        )
    return word == "CLOSED"


def _inside(folder: Path, name: str) -> Path:
    """A picture's path; a name that leads out of the folder is refused."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(f"the dataset names a picture outside '{folder}'; it is not opened")
    return folder / name


def _first_word(question: str) -> str:
    word = re.match(r"[a-z]+", question.strip().lower())
    known = {"what", "where", "when", "how", "why", "who", "which", "whose"}
    return word.group() if word and word.group() in known else "other"
