import pytest

from edge_medgemma.runtime.commands.sanitize import printable


@pytest.mark.parametrize("text", ["plain", "µ 5 × 3 mm²", "line\nnext\ttab", "é 漢字 🙂"])
def test_ordinary_text_stays(text) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("text", ["\x1b[31m", "\r", "\x9b2J", "\u202e", "\u2028", "\x00", "\ud800"])
def test_what_could_steer_a_terminal_is_spelled_out(text) -> None:
    shown = printable(text)
    assert shown.startswith("\\") and shown.isprintable()
