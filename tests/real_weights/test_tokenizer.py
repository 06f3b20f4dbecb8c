"""The true tokenizer in the languages of the clinics."""

from pathlib import Path
from typing import Any

import pytest

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.runtime.generation.tokenizer import Tokenizer

SENTENCES = {
    "English": "The CT shows no bleed; the patient (age 34) is stable.\n\nNext scan: 24 h.",
    "French": "Le scanner cérébral ne montre pas d'hémorragie ; l'œdème a diminué de 30 %.",
    "Spanish": "¿Hay fractura? No: el paciente de 7 años sólo tiene una contusión leve.",
    "Portuguese": "A radiografia do tórax revela infiltração à direita, sem derrame pleural.",
    "Swahili": "Picha ya kifua inaonyesha maji kwenye mapafu; mgonjwa ana homa na kikohozi.",
    "Hindi": "सीटी स्कैन में मस्तिष्क में रक्तस्राव नहीं दिखता है। रोगी की हालत स्थिर है।",
    "Arabic": "لا يُظهر التصوير المقطعي نزفًا في الدماغ، وحالة المريض مستقرة (٣٤ عامًا).",
    "signs": "T₁ 1.5 T, 37 °C, ≥ 5 µm, −0.3 ± 0.1, 2×2\tend  two spaces 🩻",
}


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    """As the runtime reads it."""
    tokens = open_checkpoint(str(checkpoint)).tokens
    return Tokenizer(checkpoint / "tokenizer.json", tokens)


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> Any:
    """transformers' tokenizer of the model, which builds its own rules around the same pieces."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


def test_a_text_comes_back(tokenizer: Tokenizer) -> None:
    for language, sentence in SENTENCES.items():
        assert tokenizer.decode(tokenizer.encode(sentence)) == sentence, language


def test_ids_are_those_of_transformers(tokenizer: Tokenizer, theirs: Any) -> None:
    for language, sentence in SENTENCES.items():
        expected = theirs(sentence, add_special_tokens=False)["input_ids"]
        assert tokenizer.encode(sentence) == expected, language
