"""Cases assessed on a Ray cluster (https://docs.ray.io): one engine a worker, results as they come.

Scheduling, retries and the loss of a machine are Ray Data's: a case whose worker died is done again
by another. Engine and scans lie under the same paths on every node, as on a shared file system.
"""

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_medgemma.calibration.evaluation.assessment import Assessment, assess
from edge_medgemma.calibration.evaluation.cases import Case
from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.domain import read_domain
from edge_medgemma.runtime.errors import (
    DependencyError,
    EdgeMedgemmaError,
    EngineError,
    ResourceError,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.options import TriageOptions

if TYPE_CHECKING:
    import ray as ray_library

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, for as long as the command runs."""

CONNECT_S = 30
"""Time after which a cluster that does not answer is given up."""

_CONNECT = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"
"""Run by a process of its own, because `ray.init` waits for an address for ever and lets nothing stop
it."""

LOCAL_STORE_BYTES = 200_000_000
"""Cases and results are small; Ray's default is a third of the memory."""


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What every worker opens once."""

    engine_directory: Path
    manifest_sha256: str
    """Of the engine that the command opened; a worker that finds another refuses it."""
    providers: Providers
    options: TriageOptions
    threads: int | None
    """CPU threads of one worker; None takes all cores of a node."""


class _Worker:
    """An open engine, in a process of Ray's."""

    def __init__(self, setup: WorkerSetup, threads: int) -> None:
        self._options = setup.options
        self._engine, self._domain, self._error = None, None, None
        try:
            self._engine = _open_engine(setup, threads)
            self._domain = read_domain(self._engine.directory, self._engine.manifest)
        except EdgeMedgemmaError as error:
            self._error = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The assessment of one case, or the error of ours that prevents it.

        An error of ours is handed back, not raised: Ray would try again what cannot succeed.
        """
        found: Assessment | EdgeMedgemmaError
        try:
            if self._engine is None:
                raise self._error or EngineError("the engine could not be opened")
            case = pickle.loads(row["case"])
            found = assess(self._engine, case, self._options, self._domain)
        except EdgeMedgemmaError as error:
            found = error
        return {"found": pickle.dumps(found)}


def _open_engine(setup: WorkerSetup, threads: int) -> Engine:
    engine = Engine.open(setup.engine_directory, threads=threads, providers=setup.providers)
    if engine.manifest.sha256 != setup.manifest_sha256:
        raise EngineError(
            f"'{setup.engine_directory}' is another engine on a worker than here; put the same "
            "engine under this path on every node"
        )
    return engine


def assess_on_cluster(
    address: str, cases: Sequence[Case], setup: WorkerSetup
) -> Iterator[Assessment]:
    """Assess the cases by as many workers as the cluster has room for, in the order they end.

    Args:
        address: `host:port` of the cluster's head, `auto` on one of its nodes, or `local`.
        cases: to do.
        setup: what a worker opens.

    Raises:
        DependencyError: Ray is not installed.
        ResourceError: the cluster does not answer, or has no room for a worker.
        EngineError: a worker finds another engine, or none.
    """
    ray = _require_ray()
    _connect(ray, address)
    try:
        for row in _rows(ray, cases, setup):
            found = pickle.loads(row["found"])
            if isinstance(found, EdgeMedgemmaError):
                raise found
            yield found
    finally:
        ray.shutdown()


def _require_ray() -> "ray_library":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the site
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise DependencyError(
            "--ray needs Ray, which is not installed; from a checkout, run: pip install '.[cpu,ray]'"
        ) from None
    return ray


def _connect(ray: "ray_library", address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        ray.init(include_dashboard=False, object_store_memory=LOCAL_STORE_BYTES, **quiet)
        return
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CONNECT, address],
            timeout=CONNECT_S,
            capture_output=True,
            text=True,
            check=False,
        )
        reason = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"no answer within {CONNECT_S} s"
    if reason:
        raise ResourceError(
            f"no Ray cluster can be used at '{address}' ({reason}); expected host:port of its head, 'auto' "
            "on one of its nodes, or 'local'; 'ray status' says whether one runs"
        )
    ray.init(address=address, **quiet)


@dataclass(frozen=True, slots=True)
class _Room:
    """How many workers a cluster has room for, and what each has."""

    workers: int
    threads: int
    gpus: int


def _room(ray: "ray_library", threads: int | None) -> _Room:
    """A worker for every GPU; without any, one for every node, or as many as have `threads` cores."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus:
        nodes = [node for node in nodes if node.get("GPU", 0)]
        own = min(int(node.get("CPU", 0) // node["GPU"]) for node in nodes)
        return _Room(gpus, max(min(threads or own, own), 1), 1)
    cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise ResourceError("the Ray cluster has no free core; start a node with --num-cpus")
    own = min(threads or min(cores), max(cores))
    return _Room(sum(count // own for count in cores), own, 0)


def _rows(
    ray: "ray_library", cases: Sequence[Case], setup: WorkerSetup
) -> Iterator[dict[str, Any]]:
    """Rows of `_Worker`, as they come."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    room = _room(ray, setup.threads)
    rows = [{"case": pickle.dumps(case)} for case in cases]
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Worker,
        fn_constructor_args=(setup, room.threads),
        compute=ray.data.ActorPoolStrategy(size=min(room.workers, len(cases))),
        num_cpus=room.threads,
        num_gpus=room.gpus,
    )
    yield from found.iter_rows()
