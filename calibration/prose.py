"""Medical text written for this project: what a text model is calibrated on and measured with."""

from importlib.resources import files


def calibration_prose() -> tuple[str, ...]:
    """Paragraphs of reports, answers and textbook prose in English."""
    return _paragraphs("prose.txt")


def held_out_prose() -> tuple[str, ...]:
    """Paragraphs of the same kind that no calibration looks at."""
    return _paragraphs("held_out_prose.txt")


def _paragraphs(name: str) -> tuple[str, ...]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return tuple(text.strip().split("\n\n"))
