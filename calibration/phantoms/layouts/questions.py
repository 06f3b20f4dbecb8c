"""Questions about pictures in the layouts of VQA-RAD, SLAKE and PathVQA.

Pictures are slices of head phantoms and projections of chest phantoms, so that every answer is known.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge_medgemma.calibration.phantoms import anatomy
from edge_medgemma.calibration.phantoms import chest as chests
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.phantoms.layouts.drawn import DrawnStudy, Person, write_json

PIXELS = 256
WINDOW_HOUNSFIELD = (0.0, 80.0)
"""Black and white of a slice of the head."""

SPACING_MM = (2.5, 5.0, 2.5)

HEAD_WORDS = {
    anatomy.HAEMORRHAGE: "an intracranial hemorrhage",
    anatomy.MASS_EFFECT: "a mass effect",
    anatomy.FRACTURE: "a skull fracture",
}
CHEST_WORDS = {
    chests.EFFUSION: "a pleural effusion",
    chests.PNEUMOTHORAX: "a pneumothorax",
    chests.CARDIOMEGALY: "cardiomegaly",
}


@dataclass(frozen=True, slots=True)
class _Question:
    question: str
    answer: str
    is_closed: bool
    kind: str
    """`presence`, `modality`, `organ` or `plane`."""
    language: str = "en"


@dataclass(frozen=True, slots=True)
class _Picture:
    image: Image.Image
    is_head: bool
    questions: tuple[_Question, ...]


def write_vqa_rad_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """One picture and its questions; three of five pictures are of the test split."""
    picture = _picture(seed, place)
    name = f"synpic{10000 + place}.jpg"
    _save(picture, folder / "VQA_RAD Image Folder" / name)
    kinds = {"presence": "PRES", "modality": "MODALITY", "organ": "ORGAN", "plane": "PLANE"}
    phrase = "test_freeform" if _split(place) == "test" else "freeform"
    rows = tuple(
        {
            "qid": str(100 * place + number),
            "phrase_type": phrase,
            "qid_linked_id": f"phantom-{place}-{number}",
            "image_case_url": "",
            "image_name": name,
            "image_organ": "HEAD" if picture.is_head else "CHEST",
            "evaluation": "evaluated",
            "question": one.question,
            "question_rephrase": "NULL",
            "question_relation": "NULL",
            "question_frame": "NULL",
            "question_type": kinds[one.kind],
            "answer": one.answer,
            "answer_type": "CLOSED" if one.is_closed else "OPEN",
        }
        for number, one in enumerate(picture.questions)
        if one.language == "en"
    )
    return DrawnStudy(name, person, {}, rows)


def finish_vqa_rad(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write `VQA_RAD Dataset Public.json`."""
    write_json(folder / "VQA_RAD Dataset Public.json", _rows(studies))


def write_slake_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """A folder of one picture, and its questions, some in Chinese."""
    picture = _picture(seed, place)
    name = f"xmlab{place}/source.jpg"
    _save(picture, folder / "imgs" / name)
    kinds = {"presence": "Abnormality", "modality": "Modality", "organ": "Organ", "plane": "Plane"}
    rows = tuple(
        {
            "img_id": place,
            "img_name": name,
            "question": one.question,
            "answer": one.answer,
            "q_lang": one.language,
            "location": "Head" if picture.is_head else "Lung",
            "modality": "CT" if picture.is_head else "X-Ray",
            "answer_type": "CLOSED" if one.is_closed else "OPEN",
            "base_type": "vqa",
            "content_type": kinds[one.kind],
            "triple": ["vhead", "_", "_"],
            "qid": 100 * place + number,
        }
        for number, one in enumerate(picture.questions)
    )
    return DrawnStudy(name, person, {}, rows)


def finish_slake(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write `train.json`, `validate.json` and `test.json`."""
    for split in ("train", "validate", "test"):
        own = [one for one in studies if _split(int(one.rows[0]["img_id"])) == split]
        write_json(folder / f"{split}.json", _rows(own))


def write_pathvqa_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """One picture, and its questions in the words and letters of that dataset."""
    picture = _picture(seed, place)
    split = _split(place).replace("validate", "val")
    name = f"{split}_{place:04}"
    _save(picture, folder / "images" / split / f"{name}.jpg")
    rows = tuple(
        {"image": name, "question": one.question.lower(), "answer": one.answer.lower()}
        for one in picture.questions
        if one.language == "en"
    )
    return DrawnStudy(name, person, {}, rows)


def finish_pathvqa(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write one pickle of plain data for each split."""
    for split in ("train", "val", "test"):
        own = [one for one in studies if one.key.startswith(f"{split}_")]
        table = folder / "qas" / split / f"{split}_qa.pkl"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_bytes(pickle.dumps(_rows(own)))


def _rows(studies: Sequence[DrawnStudy]) -> list[dict[str, Any]]:
    return [dict(row) for one in studies for row in one.rows]


def _split(place: int) -> str:
    return {3: "validate", 4: "train"}.get(place % 5, "test")


def _picture(seed: int, place: int) -> _Picture:
    """A slice of a head and a radiograph of a chest in turn."""
    return _head(seed) if place % 2 == 0 else _chest(seed)


def _head(seed: int) -> _Picture:
    phantom = draw_phantom(seed, count=8)
    areas = sum((mask.sum(axis=(1, 2)) for mask in phantom.finding_masks.values()), np.zeros(8))
    index = int(np.argmax(areas)) if areas.any() else 4
    low, high = WINDOW_HOUNSFIELD
    shown = np.clip((phantom.hounsfield[index] - low) / (high - low), 0, 1) * 255
    present = {
        code: code in phantom.findings and bool(phantom.finding_masks[code][index].any())
        for code in HEAD_WORDS
    }
    questions = [
        _Question(f"Is there {words} in this image?", _yes_no(present[code]), True, "presence")
        for code, words in HEAD_WORDS.items()
    ]
    questions += _general("CT", "Brain", "大脑", is_head=True)
    return _Picture(Image.fromarray(np.rint(shown).astype(np.uint8)), True, tuple(questions))


def _chest(seed: int) -> _Picture:
    chest = chests.draw_chest(seed, SPACING_MM, is_upright=True)
    questions = [
        _Question(
            f"Is there {words} in this image?", _yes_no(code in chest.findings), True, "presence"
        )
        for code, words in CHEST_WORDS.items()
    ]
    questions += _general("X-Ray", "Lung", "肺", is_head=False)
    return _Picture(Image.fromarray(chests.project(chest)), False, tuple(questions))


def _general(modality: str, organ: str, organ_zh: str, *, is_head: bool) -> list[_Question]:
    plane = "Axial" if is_head else "Coronal"
    return [
        _Question("Is this a CT?", _yes_no(is_head), True, "modality"),
        _Question("What modality is used to take this image?", modality, False, "modality"),
        _Question("What organ is shown in this image?", organ, False, "organ"),
        _Question("What is the plane of this image?", plane, False, "plane"),
        _Question("图中显示的是什么器官?", organ_zh, False, "organ", "zh"),
    ]


def _yes_no(value: bool) -> str:
    return "Yes" if value else "No"


def _save(picture: _Picture, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (PIXELS, PIXELS)
    picture.image.resize(size, Image.Resampling.BILINEAR).save(path, quality=90)
