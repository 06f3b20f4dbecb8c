"""Small datasets of questions about pictures, in the layouts of their authors."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_jpeg(path: Path, seed: int) -> Path:
    """A grey picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_vqa_rad(folder: Path) -> Path:
    """Two pictures, three test questions and one of training; one answer is a number."""
    rows: list[dict[str, Any]] = [
        {"qid": 0, "phrase_type": "test_freeform", "question_type": "PRES", "image_organ": "HEAD",
         "image_name": "synpic1.jpg", "question": "Is there a bleed?", "answer": "Yes",
         "answer_type": "CLOSED"},
        {"qid": 1, "phrase_type": "test_para", "question_type": "COUNT", "image_organ": "CHEST",
         "image_name": "synpic2.jpg", "question": "How many lesions?", "answer": 3,
         "answer_type": "OPEN"},
        {"qid": 2, "phrase_type": "test_freeform", "question_type": "PRES", "image_organ": "HEAD",
         "image_name": "synpic1.jpg", "question": "Is it normal?", "answer": "No",
         "answer_type": "CLOSED "},
        {"qid": 3, "phrase_type": "freeform", "question_type": "PLANE", "image_organ": "ABD",
         "image_name": "synpic2.jpg", "question": "Which plane?", "answer": "Axial",
         "answer_type": "OPEN"},
    ]  # fmt: skip
    for number in (1, 2):
        write_jpeg(folder / "VQA_RAD Image Folder" / f"synpic{number}.jpg", number)
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def write_slake(folder: Path) -> Path:
    """Two pictures, four English questions and a Chinese one, out of the order of pictures."""
    rows = []
    for number, (name, question, answer, kind, language) in enumerate(
        [
            ("xmlab1", "Is the lung healthy?", "Yes", "CLOSED", "en"),
            ("xmlab0", "What organ is shown?", "Lung", "OPEN", "en"),
            ("xmlab1", "肺健康吗?", "是", "CLOSED", "zh"),
            ("xmlab0", "Is this a CT?", "No", "CLOSED", "en"),
            ("xmlab1", "What is bright?", "The left lung", "OPEN", "en"),
        ]
    ):
        write_jpeg(folder / "imgs" / name / "source.jpg", int(name[-1]))
        rows.append(
            {"qid": number, "img_id": int(name[-1]), "img_name": f"{name}/source.jpg",
             "question": question, "answer": answer, "answer_type": kind, "q_lang": language,
             "modality": "CT" if name == "xmlab0" else "X-Ray", "content_type": "Organ"}
        )  # fmt: skip
    (folder / "test.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def write_pathvqa(folder: Path) -> Path:
    """Two questions as the authors' pickle."""
    rows = [
        {"image": "test_0001", "question": "where is the lesion?", "answer": "in the canals"},
        {"image": "test_0001", "question": "is it benign?", "answer": "no"},
    ]
    write_jpeg(folder / "images" / "test" / "test_0001.jpg", 1)
    table = folder / "qas" / "test" / "test_qa.pkl"
    table.parent.mkdir(parents=True)
    table.write_bytes(pickle.dumps(rows))
    return folder
