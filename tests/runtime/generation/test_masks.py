import numpy as np

from edge_medgemma.runtime.generation.masks import HIDDEN, TokenMeta, additive_mask


def _rows(positions, images=None, chunks=None, branches=None) -> TokenMeta:
    n = len(positions)
    given = [np.asarray(a if a is not None else [-1] * n) for a in (images, chunks, branches)]
    return TokenMeta(np.asarray(positions), *given)


def _seen(mask: np.ndarray) -> list[str]:
    assert set(np.unique(mask)) <= {0, HIDDEN}
    return ["".join("x" if v == 0 else "." for v in row) for row in mask[0, 0]]


def test_images_see_themselves_both_ways_and_only_what_is_earlier() -> None:
    rows = _rows(range(6), images=[-1, 0, 0, -1, 1, 1])
    assert _seen(additive_mask(rows, rows, None)) == [
        "x.....",
        "xxx...",
        "xxx...",
        "xxxx..",
        "xxxxxx",
        "xxxxxx",
    ]


def test_window_bounds_the_past_even_inside_an_image() -> None:
    rows = _rows(range(5), images=[-1, 0, 0, 0, -1])
    assert _seen(additive_mask(rows, rows, 2)) == [
        "x....",
        "xxxx.",
        ".xxx.",
        "..xx.",
        "...xx",
    ]


def test_questions_of_one_pass_see_the_prefix_and_themselves() -> None:
    prefix = _rows(range(3), chunks=[0, 0, 1])
    questions = _rows([3, 4, 3, 4], branches=[0, 0, 1, 1])
    keys = prefix + questions
    assert _seen(additive_mask(questions, keys, None)) == [
        "xxxx...",
        "xxxxx..",
        "xxx..x.",
        "xxx..xx",
    ]
    assert _seen(additive_mask(questions, keys, None, {1: [1]})) == [
        "xxxx...",
        "xxxxx..",
        "xx...x.",
        "xx...xx",
    ]
