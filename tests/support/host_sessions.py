"""onnxruntime's CPU in its CUDA provider's place, for `CudaDecoder` and the peaks of a device."""

from pathlib import Path
from typing import Any

import onnxruntime

from edge_medgemma.runtime.backends.onnxruntime.session import open_session
from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.manifest import DECODE_GRAPH


class HostSessions:
    """Opens graphs on the CPU and counts what runs; a session that records may be told to fail."""

    device_type = "cpu"

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.opened: list[tuple[str, bool]] = []
        self.runs: list[str | None] = []

    def open(self, graph: Path | bytes, *, grows: bool = False, is_recorded: bool = False) -> Any:
        if isinstance(graph, bytes):
            return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.opened.append((graph.name, is_recorded))
        return open_session(graph, 1)

    def run(self, session: Any, binding: Any, options: Any = None) -> None:
        recording = None if options is None else options.get_run_config_entry("gpu_graph_id")
        self.runs.append(recording)
        is_recorded = self.opened[-1:] == [(DECODE_GRAPH, True)]
        if is_recorded and self.runs.count(recording) == self.fails_at:
            raise ProviderError("this session cannot be recorded")
        session.run_with_iobinding(binding, options)
