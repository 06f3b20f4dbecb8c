"""One progress bar for work in stages, on stderr where that is a terminal, else silence."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edge_medgemma.runtime.triage.questions import Progress as OnProgress

STAGE_WORDS = {
    "discover": "reading headers",
    "decode": "decoding slices",
    "vision": "encoding slices",
    "control": "reading blank slices",
    "prefill": "reading slices",
    "score": "asking",
    "evidence": "finding key slices",
}


@contextmanager
def stage_progress() -> Iterator[OnProgress]:
    """A function to call with (stage, done, total); the bar vanishes at the end."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    disabled = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disabled) as progress:
        task = progress.add_task("opening the engine", total=None)
        current = ""

        def update(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:
                current = stage
                progress.reset(task, description=STAGE_WORDS[stage])
            progress.update(task, completed=done, total=total)

        yield update
