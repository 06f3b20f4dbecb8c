"""Output on stdout: tables and lines keeps its figures whole, also in a pipe."""

from rich.console import Console, RenderableType

PIPE_COLUMNS = 120
"""Width where stdout is no terminal; rich would take 80 and cut."""


def print_table(*parts: RenderableType) -> None:
    """Print rich tables and lines as wide as the terminal, or as PIPE_COLUMNS."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_COLUMNS)
    for part in parts:
        console.print(part)
