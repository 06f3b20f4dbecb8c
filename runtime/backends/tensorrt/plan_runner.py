"""The two graphs as TensorRT plans: activations, weights and caches stay on the device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import AttentionKind, Caches
from edge_medgemma.runtime.backends.cuda.buffers import DeviceBlocks
from edge_medgemma.runtime.backends.cuda.cuda_graph import CudaGraph
from edge_medgemma.runtime.backends.cuda.device import CudaDevice, Device
from edge_medgemma.runtime.backends.cuda.kv_caches import DeviceCaches
from edge_medgemma.runtime.backends.decoder_inputs import chunk_feeds
from edge_medgemma.runtime.backends.tensorrt.library import OpenedPlan, find_tensorrt
from edge_medgemma.runtime.backends.tensorrt.plan_files import (
    DECODER_PLAN,
    VISION_PLAN,
    PlanRecord,
    current_place,
    read_plan,
    read_record,
)
from edge_medgemma.runtime.backends.tensorrt.shapes import DecoderShapes, VisionShapes
from edge_medgemma.runtime.errors import ProviderError, ResourceError
from edge_medgemma.runtime.manifest import Manifest


class TensorRtVision:
    """vision.plan: the upload of a batch runs beside the computation of the one before."""

    batch = 16
    """Slices per call that suit it: two batches of the greatest profile."""

    def __init__(
        self, device: Device, plan: OpenedPlan, manifest: Manifest, shapes: VisionShapes
    ) -> None:
        """`plan` was built with `shapes`."""
        vision, hidden = manifest.vision, manifest.text.hidden_size
        self._blocks = DeviceBlocks(device)
        self._device = device
        self._shapes = shapes
        self._features = (vision.tokens_per_image, hidden)
        self._context = plan.new_context(self._blocks.allocate(plan.workspace_bytes))
        self._copying, self._computing = device.new_stream(), device.new_stream()
        image_bytes = 3 * vision.image_size**2 * 4
        largest = shapes.batches[-1]
        output_bytes = largest * vision.tokens_per_image * hidden * 4
        self._pixels = [self._blocks.allocate(largest * image_bytes) for _ in range(2)]
        self._output = self._blocks.allocate(output_bytes)

    def run(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VisionModel.run`."""
        count, largest = len(pixel_values), self._shapes.batches[-1]
        features = np.empty((count, *self._features), np.float32)
        waiting: NDArray[np.float32] | None = None
        for number, start in enumerate(range(0, count, largest)):
            part = np.ascontiguousarray(pixel_values[start : start + largest])
            # Its earlier content was used by the batch before last, which has been fetched.
            address = self._pixels[number % 2]
            self._device.upload(address, part, self._copying)
            self._fetch(waiting)
            self._device.follow(self._computing, self._copying)
            self._execute(address, part.shape)
            waiting = features[start : start + largest]
        self._fetch(waiting)
        return features

    def close(self) -> None:
        """Release the device memory of inputs and outputs."""
        self._blocks.close()
        self._context = None

    def _execute(self, pixels: int, shape: tuple[int, ...]) -> None:
        context = self._context
        context.set_optimization_profile_async(self._shapes.profile_for(shape[0]), self._computing)
        context.set_input_shape("pixel_values", shape)
        context.set_tensor_address("pixel_values", pixels)
        context.set_tensor_address("image_features", self._output)
        _run(context, self._computing)

    def _fetch(self, target: NDArray[np.float32] | None) -> None:
        if target is not None:
            self._device.download(target, self._output, self._computing)
            self._device.synchronize(self._computing)


class TensorRtDecoder:
    """decoder.plan, in the `trt` dialect; see the contract in `runtime.manifest`."""

    def __init__(
        self, device: Device, plan: OpenedPlan, manifest: Manifest, shapes: DecoderShapes
    ) -> None:
        """`plan` was built with `shapes`."""
        self._blocks = DeviceBlocks(device)
        self._device = device
        self._manifest = manifest
        self._shapes = shapes
        self._stream = device.new_stream()
        self._recorded = CudaGraph(device, self._stream)
        workspace = self._blocks.allocate(plan.workspace_bytes)
        # A context of its own keeps one token's shapes: a recording lasts only as long as they do.
        # Two contexts may have the same profile since TensorRT 10.0.
        self._chunk, self._token = (plan.new_context(workspace) for _ in range(2))
        for context, tokens in ((self._chunk, 2), (self._token, 1)):
            context.set_optimization_profile_async(shapes.profile_for(tokens), self._stream)
        self._inputs = {
            name: self._blocks.allocate(size_bytes)
            for name, size_bytes in shapes.input_bytes(manifest).items()
        }
        self._logits = self._blocks.allocate(shapes.logit_rows * manifest.text.vocabulary * 4)

    def new_caches(self) -> DeviceCaches:
        """See `DecoderModel.new_caches`."""
        rows: dict[AttentionKind, int] = {
            "global": self._shapes.global_rows,
            "local": self._shapes.local_rows,
        }
        return DeviceCaches(self._device, self._manifest, self._stream, rows)

    def decode_kv_caches(
        self,
        caches: Caches,
        rows: Mapping[AttentionKind, slice],
        spare_rows: Mapping[AttentionKind, int],
    ) -> None:
        """See `DecoderModel.decode_kv_caches`: there is no faster form."""

    def run(
        self,
        caches: Caches,
        embeddings: NDArray[np.float32],
        position_ids: NDArray[np.int64],
        mask_global: NDArray[np.float32],
        mask_local: NDArray[np.float32],
        logit_rows: NDArray[np.int64],
        *,
        is_decode: bool = False,
    ) -> NDArray[np.float32]:
        """See `DecoderModel.run`.

        Raises:
            ResourceError: more tokens than the plan was built for.
        """
        assert isinstance(caches, DeviceCaches)
        tokens = len(embeddings)
        self._check_room(tokens, mask_global.shape[-1], mask_local.shape[-1], len(logit_rows))
        # a plan has no empty tensors: prefill projects one row that nobody reads
        projected = logit_rows if len(logit_rows) else np.zeros(1, np.int64)
        chunk = (embeddings, position_ids, mask_global, mask_local, projected)
        feeds = chunk_feeds("trt", caches, *chunk)
        for name, value in feeds.items():
            self._device.upload(self._inputs[name], value, self._stream)
        if tokens > 1:
            self._execute(self._chunk, feeds, caches)
        else:
            addresses = tuple(caches.addresses.values())
            self._recorded.run(addresses, lambda: self._execute(self._token, feeds, caches))
        logits = np.empty((len(logit_rows), self._manifest.text.vocabulary), np.float32)
        if len(logit_rows):
            self._device.download(logits, self._logits, self._stream)
        self._device.synchronize(self._stream)
        return logits

    def close(self) -> None:
        """Release the device memory of inputs and outputs."""
        self._recorded.close()
        self._blocks.close()
        self._chunk = self._token = None

    def __del__(self) -> None:
        """A recording is not the garbage collector's; the last prefix releases it."""
        self.close()

    def _execute(
        self, context: Any, feeds: Mapping[str, NDArray[Any]], caches: DeviceCaches
    ) -> None:
        for name, value in feeds.items():
            context.set_input_shape(name, value.shape)
            context.set_tensor_address(name, self._inputs[name])
        for name, address in caches.addresses.items():
            context.set_tensor_address(f"past_{name}", address)
            context.set_tensor_address(f"present_{name}", address)
        context.set_tensor_address("logits", self._logits)
        _run(context, self._stream)

    def _check_room(self, tokens: int, rows_global: int, rows_local: int, logit_rows: int) -> None:
        shapes = self._shapes
        if rows_global > shapes.global_rows or rows_local > shapes.local_rows:
            raise ResourceError(
                f"the plan holds {shapes.global_rows} tokens, the scan needs {rows_global}; use "
                "fewer --slices or run 'edge-medgemma build' with more"
            )
        if tokens > shapes.prefill_rows or logit_rows > shapes.logit_rows:
            raise ResourceError(
                f"the plan prefills {shapes.prefill_rows} tokens and answers {shapes.logit_rows} "
                f"questions at once, {tokens} and {logit_rows} were given; build it again"
            )


def _run(context: Any, stream: int) -> None:
    if not context.execute_async_v3(stream):
        raise ProviderError("TensorRT could not run the plan; run 'edge-medgemma build' again")


def plan_record(directory: Path, manifest: Manifest) -> PlanRecord:
    """Record of the plans of an engine directory; raises as `open_tensorrt_vision` does."""
    device, library = CudaDevice(), find_tensorrt()
    place = current_place(library, device, manifest)
    return read_record(directory, place, contents=False)


def open_tensorrt_vision(directory: Path, manifest: Manifest) -> TensorRtVision:
    """vision.plan of an engine directory, built on this device.

    Raises:
        DependencyError: TensorRT or cuda-bindings is not installed.
        ProviderError: no device, or plans of another place.
        EngineError: a plan was altered.
    """
    device, library = CudaDevice(), find_tensorrt()
    record = read_record(directory, current_place(library, device, manifest))
    plan = library.open(read_plan(directory, VISION_PLAN))
    return TensorRtVision(device, plan, manifest, record.vision_shapes)


def open_tensorrt_decoder(directory: Path, manifest: Manifest) -> TensorRtDecoder:
    """decoder.plan of an engine directory; see `open_tensorrt_vision`."""
    device, library = CudaDevice(), find_tensorrt()
    record = read_record(directory, current_place(library, device, manifest))
    plan = library.open(read_plan(directory, DECODER_PLAN))
    return TensorRtDecoder(device, plan, manifest, record.decoder_shapes)
