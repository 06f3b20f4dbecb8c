"""A graph of an engine, cut at the residual stream: one layer loaded at a time, all of it visible."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EngineError

Array = NDArray[np.generic]

CUT_SUFFIX = ".mlp_residual"
"""Name ending of the value that a layer hands to the next one, in both graphs."""

PRODUCT_SUFFIX = ".product"
"""Name ending of the MatMul of a linear layer."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer of a stage."""

    name: str
    input: str
    """Value that is multiplied"""
    weight: str
    """Initializer [K, N]"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive nodes of a graph, from one cut to the next."""

    index: int
    model: onnx.ModelProto
    stream_input: str | None
    """Value of the stage before; None for the first"""
    stream_output: str
    observed: tuple[str, ...]
    """Values made in this stage"""
    linears: tuple[Linear, ...]


class GraphStages:
    """Stages of `vision.onnx` or `decoder.onnx`; the last one is what follows the last layer."""

    def __init__(self, directory: Path, part: str) -> None:
        """Read the graph `part` of an engine directory, its weights left where they are."""
        self.directory = directory
        self.part = part
        self._model = onnx.load(directory / f"{part}.onnx", load_external_data=False)
        self._initializers = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._dtypes = {v.name: v.type.tensor_type.elem_type for v in self._model.graph.value_info}
        self._producers = {out: node for node in self._model.graph.node for out in node.output}
        self.cuts = tuple(out for out in self._producers if out.endswith(CUT_SUFFIX))
        self.output = self._final_output()

    def __len__(self) -> int:
        return len(self.cuts) + 1

    def stage(self, index: int) -> Stage:
        """Stage `index`: a layer, or the tail."""
        ends = (*self.cuts, self.output)
        begin = ends[index - 1] if index else None
        end = ends[index]
        nodes = self._between(begin, end)
        linears = tuple(
            Linear(node.output[0].removesuffix(PRODUCT_SUFFIX), node.input[0], node.input[1])
            for node in nodes
            if node.op_type == "MatMul" and node.output[0].endswith(PRODUCT_SUFFIX)
        )
        observed = tuple(out for node in nodes for out in node.output if out)
        return Stage(index, self._submodel(nodes, begin, observed), begin, end, observed, linears)

    def weight(self, name: str) -> NDArray[np.float32]:
        """A float32 initializer, mapped from the data file."""
        tensor = self._initializers[name]
        place = {entry.key: entry.value for entry in tensor.external_data}
        mapped: NDArray[np.float32] = np.memmap(
            self.directory / place["location"],
            "<f4",
            "r",
            offset=int(place.get("offset", 0)),
            shape=tuple(tensor.dims),
        )
        return mapped

    def bytes(self, index: int) -> int:
        """Bytes of the weights that a stage loads."""
        model = self.stage(index).model
        return sum(
            int(entry.value)
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "length"
        )

    def _final_output(self) -> str:
        wanted = {"vision": "image_features", "decoder": "logits"}[self.part]
        if wanted not in self._producers:
            raise EngineError(f"'{self.directory}' has a {self.part} graph without '{wanted}'")
        return wanted

    def _between(self, begin: str | None, end: str) -> list[onnx.NodeProto]:
        """Nodes that `end` needs and that `begin` does not stand in for, in graph order."""
        needed, waiting = set(), [end]
        while waiting:
            value = waiting.pop()
            node = self._producers.get(value)
            if value == begin or node is None or node.output[0] in needed:
                continue
            needed.add(node.output[0])
            waiting.extend(_reads(node))
        return [node for node in self._model.graph.node if node.output[0] in needed]

    def _submodel(
        self, nodes: Sequence[onnx.NodeProto], begin: str | None, observed: Sequence[str]
    ) -> onnx.ModelProto:
        read = {name for node in nodes for name in _reads(node)}
        graph = onnx.GraphProto(name=self.part)
        graph.node.extend(nodes)
        graph.initializer.extend(t for name, t in self._initializers.items() if name in read)
        graph.input.extend(v for v in self._model.graph.input if v.name in read)
        if begin is not None:
            shape = ["N", "P", "H"] if self.part == "vision" else [1, "S", "H"]
            dtype = self._dtypes.get(begin, onnx.TensorProto.FLOAT)
            graph.input.append(onnx.helper.make_tensor_value_info(begin, dtype, shape))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in observed)
        model = onnx.ModelProto(graph=graph, ir_version=self._model.ir_version)
        model.opset_import.extend(self._model.opset_import)
        return model


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names of the values that a node reads, those its branches take from outside included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = attribute.g.node
            made = {name for one in inner for name in one.output}
            names |= {name for one in inner for name in _reads(one)} - made
    return names


class StageSession:
    """A stage, loaded; every value it makes can be asked for."""

    def __init__(
        self, stage: Stage, directory: Path, threads: int | None = None, *, packed: bool = True
    ) -> None:
        """`packed=False` multiplies weights where they are mapped: slower, and half the memory."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(directory)
        )
        if not packed:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session: Any = onnxruntime.InferenceSession(
            stage.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = frozenset(value.name for value in self._session.get_inputs())
        self.floats = tuple(
            value.name for value in self._session.get_outputs() if value.type == "tensor(float)"
        )

    def run(self, feeds: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The values `wanted`, by name; feeds that the stage does not take are left out."""
        own = {name: value for name, value in feeds.items() if name in self.inputs}
        return dict(zip(wanted, self._session.run(list(wanted), own), strict=True))
