"""Progress of long work: a bar on stderr where that is a terminal, else silence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

OnStage = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

STAGE_WORDS = {
    "discover": "reading headers",
    "decode": "decoding slices",
    "open vision": "opening the tower",
    "vision": "encoding slices",
    "control": "prefilling blank slices",
    "prefill": "prefilling slices",
    "score": "scoring findings",
    "evidence": "finding key slices",
}


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A function to call with (done, total); the bar vanishes at the end."""
    with _bar(label) as update:
        yield partial(update, label)


@contextmanager
def named_progress(label: str) -> Iterator[OnStage]:
    """A function to call with (what is done now, done, total); `label` stands there first."""
    with _bar(label) as update:
        yield update


@contextmanager
def stage_progress() -> Iterator[OnStage]:
    """A function to call with (stage, done, total), the stage one of STAGE_WORDS."""
    with _bar("opening the engine") as update:
        yield lambda stage, done, total: update(STAGE_WORDS[stage], done, total)


@contextmanager
def weights_progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A function to call with bytes written and bytes there will be; the bar vanishes at the end."""
    console = Console(stderr=True)
    columns = (
        TextColumn("writing weights"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    disabled = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disabled) as progress:
        task = progress.add_task("weights", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _bar(first_label: str) -> Iterator[OnStage]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    disabled = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disabled) as progress:
        task = progress.add_task(first_label, total=None)
        current = first_label

        def update(label: str, done: int, total: int) -> None:
            nonlocal current
            if label != current:
                current = label
                progress.reset(task, description=label)
            progress.update(task, completed=done, total=total)

        yield update
