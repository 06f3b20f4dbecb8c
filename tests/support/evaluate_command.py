"""Twelve phantoms that `evaluate` is walked on, and the command itself."""

from click.testing import CliRunner, Result

from edge_medgemma.runtime.cli import cli

BLEED, BREAK = "intracranial_haemorrhage", "skull_fracture"
DRAWN = [
    [BLEED], [BLEED], [], [BLEED, BREAK], [], [BREAK], [], [BLEED], [], [], [BREAK], ["mass_effect"],
]  # fmt: skip


LABELLED = [*DRAWN[:2], ["mass_effect"], *DRAWN[3:7], [], *DRAWN[8:]]
"""Two labels are wrong, so that the engine is: a mass in the third, and no bleed in the eighth."""


def evaluate(*arguments: object) -> Result:
    """Run the command on two threads."""
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments), "--threads", "2"])


def lines_of(result: Result) -> str:
    """All that the user sees, with the error, on one line."""
    shown = result.output if result.exception is None else f"{result.output} {result.exception}"
    return " ".join(shown.split())
