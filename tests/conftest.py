"""The engines and the checkpoint that tests everywhere stand on."""

import os

# Threads that spin while they wait for one another cost three times the work where cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_medgemma.runtime.generation.engine import Engine

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TINY_ENGINE = Path(__file__).resolve().parent / "data" / "tiny_engine"

# Files of half a minute and more, the longest first: one that began last would be waited for alone.
LONGEST_FILES = (
    "export/test_measured_export.py",
    "calibration/test_run.py",
    "calibration/evaluation/test_ray_workers.py",
    "export/test_flips.py",
    "export/commands/test_verify_command.py",
    "export/test_verify.py",
    "test_schemas.py",
    "calibration/evaluation/test_evaluate_bad_input.py",
    "export/commands/test_benchmark.py",
    "comparisons/test_workers.py",
    "calibration/test_data_matters.py",
    "calibration/evaluation/test_evaluate_command.py",
    "calibration/phantoms/test_command.py",
    "export/test_calibrated_export.py",
    "export/test_reference_outputs.py",
    "export/test_engine.py",
    "calibration/phantoms/test_evaluation.py",
    "runtime/test_device_imports.py",
    "gpu/test_run_steps.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the tests of damage take, and whether those of real weights run."""
    parser.addoption(
        "--bit-flips", type=int, default=40, metavar="N",
        help="bits of a manifest that runtime/test_bit_flips.py inverts, a tenth as many of a baseline",
    )  # fmt: skip
    parser.addoption(
        "--real-weights", action="store_true", help="run what `make real-weights` runs"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they were collected."""
    tests = Path(__file__).resolve().parent
    ranks = {tests / name: rank for rank, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny_engine_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed float32 engine, in a folder of its own; do not alter it."""
    return Path(shutil.copytree(TINY_ENGINE, tmp_path_factory.mktemp("tiny") / "engine"))


@pytest.fixture(scope="session")
def tiny_engine(tiny_engine_directory: Path) -> Iterator[Engine]:
    """The engine, opened."""
    with Engine.open(tiny_engine_directory, threads=2) as engine:
        yield engine


@pytest.fixture(scope="session")
def phantom_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM folder that the demo engine has grounds to speak about: a phantom with a bleed."""
    from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
    from edge_medgemma.calibration.phantoms.drawing import draw_phantom

    folder = tmp_path_factory.mktemp("phantom") / "scan"
    write_dicom_series(
        draw_phantom(3_000_002, findings=frozenset({"intracranial_haemorrhage"})), folder
    )
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the random Gemma3ForConditionalGeneration that the tiny engine is exported from."""
    pytest.importorskip("onnx_ir", reason="the extra 'export' is not installed")
    from support.tiny_checkpoint import build_tiny_checkpoint

    return build_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_tensorrt_directory(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Its engine for TensorRT in float16, with reference outputs; the CPU runs it too."""
    from edge_medgemma.export.checkpoint.loader import open_checkpoint
    from edge_medgemma.export.reference_outputs import export_with_reference_outputs
    from edge_medgemma.export.target import Target

    directory = tmp_path_factory.mktemp("tensorrt") / "engine"
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    target = Target("trt", "fp16")
    export_with_reference_outputs(
        checkpoint, directory, precision="fp16", block_size=32, target=target
    )
    return directory
