"""Documents are what their types say, strictly, and JSON has no numbers that are none."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from pydicom.uid import UID

from edge_medgemma.runtime.documents import Count, dump_json, parse_document, parse_json


@dataclass(frozen=True, slots=True)
class Inner:
    count: Count


@dataclass(frozen=True, slots=True)
class Outer:
    inner: tuple[Inner, ...]
    text: str = ""
    number: float | None = None


def test_values_of_pydicom_and_numpy_are_plain_json() -> None:
    outer = Outer((Inner(np.int64(3)),), UID("1.2.3"), np.float32(0.5))  # type: ignore[arg-type]
    document = json.loads(dump_json(outer))
    assert document == {"inner": [{"count": 3}], "text": "1.2.3", "number": 0.5}
    assert parse_document(document, Outer) == Outer((Inner(3),), "1.2.3", 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_null(value: float) -> None:
    assert json.loads(dump_json(Outer((), "", value)))["number"] is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"inner": [{"count": 0}]}', ">= 1 - at .*count"),
        (b'{"inner": [{"count": 1, "more": 2}]}', r"unknown field `\$.inner\[0\].more`"),
        (b'{"inner": [], "surprise": 1}', r"unknown field `\$.surprise`"),
        (b'{"inner": [{}]}', "missing required field `count`"),
        (b"{", "truncated"),
    ],
)
def test_what_the_type_does_not_allow_is_named_by_its_place(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text, Outer)
