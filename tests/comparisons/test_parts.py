from pathlib import Path

from comparisons.parts import Part, _part_of, decode_parts, prefill_parts

from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE


def test_operators_belong_to_parts():
    assert _part_of("MatMulNBits") == _part_of("MatMul") == "linear"
    assert _part_of("GroupQueryAttention") == "attention"
    assert _part_of("RMSNormalization") == "rest"


def test_a_line_says_the_fraction_of_the_peak():
    line = Part("avx2", "vision", "linear", 2.0, 1e12, "int16", 1e12).line()
    assert line == "| avx2 | vision | linear | 2 | 50% of 1000 G/s, int16 |"
    assert Part("avx2", "vision", "rest", 1.0).line() == "| avx2 | vision | rest | 1 |  |"


def test_the_parts_of_a_pass_are_timed():
    for parts in (prefill_parts(Path(BUILTIN_ENGINE), 1), decode_parts(Path(BUILTIN_ENGINE), 1)):
        seconds = {part.part: part.seconds for part in parts}
        assert min(seconds["linear"], seconds["attention"], seconds["rest"]) > 0
