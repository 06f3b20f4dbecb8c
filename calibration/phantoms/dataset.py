"""Labelled phantoms in the layouts of public datasets, with the truth beside them."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.calibration.phantoms.layouts import chest_ct, chest_xray, head_ct, questions
from edge_medgemma.calibration.phantoms.layouts.drawn import (
    DrawnStudy,
    Person,
    person_of,
    write_csv,
)
from edge_medgemma.runtime.files import new_directory
from edge_medgemma.runtime.host import usable_cores

MAX_PROCESSES = 8
INLINE = 12
"""Studies up to which starting processes takes longer than drawing."""

TRUTH = "truth.csv"

WriteStudy = Callable[[int, int, Person, Path], DrawnStudy]
"""Writes the study of a seed and a place, from 0, of a person, to a folder."""


@dataclass(frozen=True, slots=True)
class LayoutWriter:
    """How phantoms are laid out as one dataset is."""

    write_study: WriteStudy
    finish: Callable[[Path, Sequence[DrawnStudy]], None]
    """Writes the tables of all studies."""
    what: str = "studies"
    """What is counted."""


WRITERS: Mapping[str, LayoutWriter] = {
    "table": LayoutWriter(head_ct.write_table_study, head_ct.finish_table),
    "rsna-ich": LayoutWriter(head_ct.write_rsna_study, head_ct.finish_rsna),
    "cq500": LayoutWriter(head_ct.write_cq500_study, head_ct.finish_cq500),
    "ct-ich": LayoutWriter(head_ct.write_ct_ich_study, head_ct.finish_ct_ich),
    "ct-rate": LayoutWriter(chest_ct.write_ct_rate_study, chest_ct.finish_ct_rate),
    "nih": LayoutWriter(chest_xray.write_nih_study, chest_xray.finish_nih),
    "chexpert": LayoutWriter(chest_xray.write_chexpert_study, chest_xray.finish_chexpert),
    "msd": LayoutWriter(head_ct.write_msd_study, head_ct.finish_msd),
    "open-i": LayoutWriter(chest_xray.write_open_i_study, chest_xray.finish_open_i),
    "vqa-rad": LayoutWriter(questions.write_vqa_rad_study, questions.finish_vqa_rad, "pictures"),
    "slake": LayoutWriter(questions.write_slake_study, questions.finish_slake, "pictures"),
    "pathvqa": LayoutWriter(questions.write_pathvqa_study, questions.finish_pathvqa, "pictures"),
}
"""By name of the layout; the scans in the order in which `evaluate` lists theirs."""


def write_dataset(
    layout: str,
    count: int,
    first_seed: int,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[DrawnStudy, ...]:
    """Draw phantoms and write them to a folder that does not exist yet.

    The files follow from layout, count and seed alone. Beside the layout's own tables, `truth.csv`
    says what was drawn, by the names that the layout's table uses.

    Args:
        layout: a name of WRITERS.
        count: of studies, or of pictures for a layout of questions.
        first_seed: the next study takes the next one.
        folder: to write.
        on_progress: counts studies.

    Raises:
        ResourceError: the folder exists already or cannot be written; nothing is left behind.
    """
    writer = WRITERS[layout]
    with new_directory(folder) as temporary:
        studies = []
        with _mapping(count) as run:
            jobs = ((writer.write_study, first_seed, place, temporary) for place in range(count))
            for study in run(jobs):
                studies.append(study)
                if on_progress is not None:
                    on_progress(len(studies), count)
        writer.finish(temporary, studies)
        codes = tuple(dict.fromkeys(code for one in studies for code in one.findings))
        if codes:
            rows = ({"study": one.key, **_flags(one)} for one in studies)
            write_csv(temporary / TRUTH, rows, ("study", *codes))
    return tuple(studies)


_Job = tuple[WriteStudy, int, int, Path]


def _write(job: _Job) -> DrawnStudy:
    write_study, first_seed, place, folder = job
    return write_study(first_seed + place, place, person_of(first_seed, place), folder)


@contextmanager
def _mapping(count: int) -> Iterator[Callable[[Iterator[_Job]], Iterator[DrawnStudy]]]:
    """A function that does jobs and yields what comes of them in their order."""
    processes = min(MAX_PROCESSES, usable_cores())
    if count <= INLINE or processes < 2:
        yield lambda jobs: map(_write, jobs)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy threads of the caller's
    with ProcessPoolExecutor(processes, context) as pool:
        try:
            yield lambda jobs: pool.map(_write, jobs)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _flags(study: DrawnStudy) -> dict[str, int]:
    return {code: int(value) for code, value in study.findings.items()}
