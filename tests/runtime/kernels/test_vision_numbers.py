"""The trial of the vision kernels passes at each level, and finds a kernel that is wrong."""

import numpy as np
import pytest

from edge_medgemma.runtime.kernels import vision_numbers
from edge_medgemma.runtime.kernels.level import cpu_kernels
from edge_medgemma.runtime.kernels.vision_numbers import vision_fault


class OneWrong:
    """The kernels, one of which gets one row wrong."""

    def __init__(self, name: str, place: int) -> None:
        self._name, self._place = name, place

    def __getattr__(self, name: str) -> object:
        kernel = getattr(cpu_kernels, name)
        if name != self._name:
            return kernel

        def wrong(*arguments: object) -> None:
            kernel(*arguments)
            out = arguments[self._place]
            assert isinstance(out, np.ndarray)
            out[: len(out) // 10] = 0

        return wrong


def test_kernels_as_they_are_pass() -> None:
    assert vision_fault() is None


@pytest.mark.parametrize(
    ("name", "place", "words"),
    [
        ("vision_pack", 4, "linear layers"),
        ("vision_linear", 9, "linear layers"),
        ("vision_quantise", 8, "linear layers"),
        ("vision_attend", 5, "attention"),
    ],
)
def test_a_kernel_that_is_wrong_is_found(name, place, words, monkeypatch) -> None:
    monkeypatch.setattr(vision_numbers, "cpu_kernels", OneWrong(name, place))
    assert words in str(vision_fault()) and "differs from numpy" in str(vision_fault())
