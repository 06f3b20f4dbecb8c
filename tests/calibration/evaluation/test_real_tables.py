"""The real tables of NIH ChestX-ray14, CheXpert and Open-I are read without loss.

They lie in the package `torchxrayvision` 1.5.7 (`pip download --no-deps torchxrayvision==1.5.7`), which
is no dependency: it is looked for among the installed ones, then as a wheel, or as its unpacked folder, at
the path in EDGE_MEDGEMMA_TORCHXRAYVISION. Counts are those of the datasets' own papers and of the tables.
"""

import csv
import gzip
import importlib.util
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_medgemma.calibration.evaluation.datasets.csv_table import open_table
from edge_medgemma.calibration.evaluation.datasets.registry import read_labels
from edge_medgemma.calibration.evaluation.records import Labels

VARIABLE = "EDGE_MEDGEMMA_TORCHXRAYVISION"
DATA = "torchxrayvision/data"


def _reader() -> Callable[[str], bytes]:
    """A function that reads one file of the package's data."""
    named = Path(os.environ.get(VARIABLE, ""))
    if named.suffix == ".whl" and named.is_file():
        return lambda name: zipfile.ZipFile(named).read(f"{DATA}/{name}")
    found = importlib.util.find_spec("torchxrayvision")
    places = (found.submodule_search_locations if found else None) or ()
    folders = [named / DATA, *(Path(place) / "data" for place in places)]
    for folder in folders:
        if (folder / "Data_Entry_2017_v2020.csv.gz").is_file():
            return lambda name: (folder / name).read_bytes()
    pytest.skip(f"torchxrayvision is neither installed nor at {VARIABLE}")


@pytest.fixture(scope="module")
def read() -> Callable[[str], bytes]:
    """Content of a file of the package, unpacked where it is a gzip."""
    raw = _reader()
    return lambda name: gzip.decompress(raw(name)) if name.endswith(".csv.gz") else raw(name)


def _counts(labels: Labels, code: str) -> tuple[int, int, int]:
    values = [row.findings[code] for row in labels.rows]
    return values.count(True), values.count(False), values.count(None)


def test_nih(tmp_path: Path, read: Callable[[str], bytes]) -> None:
    (tmp_path / "Data_Entry_2017_v2020.csv").write_bytes(read("Data_Entry_2017_v2020.csv.gz"))
    labels = read_labels("nih", tmp_path)
    assert len(labels.rows) == 112_120
    assert len({row.patient for row in labels.rows}) == 30_805
    assert _counts(labels, "pneumothorax") == (5_302, 106_818, 0)
    assert _counts(labels, "pleural_effusion") == (13_317, 98_803, 0)
    assert _counts(labels, "cardiomegaly") == (2_776, 109_344, 0)
    assert _counts(labels, "consolidation")[0] == 4_667
    assert all({"view", "age", "sex"} <= row.attributes.keys() for row in labels.rows)
    assert not any("named a study once more" in note for note in labels.notes)


def test_reads_of_radiologists(tmp_path: Path, read: Callable[[str], bytes]) -> None:
    path = tmp_path / "reads.csv"
    path.write_bytes(read("google2019_nih-chest-xray-labels.csv.gz"))
    labels = read_labels("nih", path)
    assert len(labels.rows) == 4_376
    rows = csv.DictReader(io.StringIO(path.read_text()))
    assert _counts(labels, "pneumothorax")[0] == sum(r["Pneumothorax"] == "YES" for r in rows)


def test_chexpert(tmp_path: Path, read: Callable[[str], bytes]) -> None:
    (tmp_path / "train.csv").write_bytes(read("chexpert_train.csv.gz"))
    labels = read_labels("chexpert", tmp_path)
    assert "223414 pictures of 187641 examinations of 64540 patients" in labels.notes
    assert len(labels.rows) == 187_641
    assert _counts(labels, "pneumothorax") == (17_313, 53_236, 117_092)
    assert not any("contradicted by a second row" in note for note in labels.notes)


def test_open_i(tmp_path: Path, read: Callable[[str], bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(read("NLMCXR_reports.tgz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    labels = read_labels("open-i", tmp_path)
    assert len(labels.rows) == 3_955
    assert "95 reports without headings, taken as not read" in labels.notes
    assert "104 reports without a picture" in labels.notes
    assert _counts(labels, "cardiomegaly") == (328, 3_485, 142)
    assert _counts(labels, "pneumothorax") == (27, 3_833, 95)


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", 36, 160_861),
        ("siim-pneumothorax-train-rle.csv.gz", 2, 12_954),
        ("vinbigdata-train.csv.gz", 8, 67_914),
        ("kaggle_stage_2_train_images_dicom_headers.csv.gz", 14, 26_684),
        ("nlmcxr_dicom_metadata.csv.gz", 176, 7_469),
    ],
)
def test_tables_of_other_datasets_lose_no_row(
    tmp_path: Path, read: Callable[[str], bytes], name: str, columns: int, rows: int
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(read(name))
    table = open_table(path)
    assert (len(table.columns), sum(1 for _ in table.rows())) == (columns, rows)
