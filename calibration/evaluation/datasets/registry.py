"""Layouts of labelled datasets by name."""

from collections.abc import Collection
from pathlib import Path

from edge_medgemma.calibration.evaluation.datasets import (
    chexpert,
    cq500,
    ct_ich,
    ct_rate,
    msd,
    nih,
    none,
    open_i,
    rsna_ich,
    table,
)
from edge_medgemma.calibration.evaluation.datasets.layout import (
    DEFAULT_REFERENCE,
    DatasetLayout,
    LabelRequest,
)
from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.errors import LabelError

__all__ = ["LAYOUTS", "DatasetLayout", "layout_of", "read_labels"]

LAYOUTS = {
    layout.name: layout
    for layout in (
        table.LAYOUT,
        rsna_ich.LAYOUT,
        cq500.LAYOUT,
        ct_ich.LAYOUT,
        ct_rate.LAYOUT,
        nih.LAYOUT,
        chexpert.LAYOUT,
        msd.LAYOUT,
        open_i.LAYOUT,
        none.LAYOUT,
    )
}
"""In the order in which `--dataset` lists them."""


def layout_of(dataset: str, path: Path) -> DatasetLayout:
    """The layout of a dataset, with what its own files tell of protocol and modality.

    Args:
        dataset: a name of LAYOUTS.
        path: as for `read_labels`.

    Raises:
        LabelError: the files are missing or damaged.
    """
    layout = LAYOUTS[dataset]
    return msd.layout_of(path, layout) if layout is msd.LAYOUT else layout


def read_labels(
    dataset: str,
    path: Path,
    reference: str = DEFAULT_REFERENCE,
    own_codes: Collection[str] = (),
) -> Labels:
    """What a dataset's table says of each study.

    Args:
        dataset: a name of LAYOUTS.
        path: the table, or the folder of the dataset that holds it.
        reference: `majority`, `any` or `reader:NAME`; only where several readers are told apart.
        own_codes: finding codes of the user's own protocol.

    Raises:
        LabelError: the table is missing, damaged or of another layout, or has no such reader.
    """
    layout = LAYOUTS[dataset]
    if reference != DEFAULT_REFERENCE and not layout.readers:
        raise LabelError(
            f"--reference {reference}: layout {dataset} does not tell readers apart; leave it out"
        )
    known = (DEFAULT_REFERENCE, "any", *(f"reader:{name}" for name in layout.readers))
    if layout.readers and reference not in known:
        raise LabelError(f"--reference {reference}: expected one of {', '.join(known)}")
    return layout.read_labels(LabelRequest(path, reference, own_codes))
