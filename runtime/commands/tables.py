"""Tables on stdout that keep their figures whole, also in a pipe."""

import shutil

from rich.console import Console, RenderableType

PIPE_COLUMNS = 120
"""Width where stdout is no terminal; rich would take 80 and cut."""


def print_table(table: RenderableType) -> None:
    """Print a rich table as wide as the terminal, or as PIPE_COLUMNS."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(PIPE_COLUMNS, shutil.get_terminal_size((0, 0)).columns))
    console.print(table)
