"""An engine directory, opened."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import DecoderModel, VisionModel
from edge_medgemma.runtime.backends.gpu import (
    DEVICES,
    BackendSelection,
    DeviceBackend,
    Devices,
    choose,
    without_devices,
)
from edge_medgemma.runtime.backends.select import (
    AUTOMATIC,
    OpenedVision,
    Provider,
    Providers,
    open_decoder,
    open_vision,
    provider_identity,
)
from edge_medgemma.runtime.errors import EngineError, ProviderError, ResourceError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.grammar import Grammars
from edge_medgemma.runtime.generation.images import to_pixel_values
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import PromptBuilder
from edge_medgemma.runtime.generation.prompt_proof import prove_prompt
from edge_medgemma.runtime.generation.self_test import require_agreement
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.host import available_bytes
from edge_medgemma.runtime.manifest import Manifest, load_manifest
from edge_medgemma.runtime.memory.device_memory import (
    fits_together_on_device,
    largest_device_slices,
    require_device_memory,
    slices_of,
)
from edge_medgemma.runtime.memory.host_memory import (
    fits_together,
    largest_slices,
    require_memory,
)
from edge_medgemma.runtime.store.integrity import check_engine
from edge_medgemma.runtime.topology import default_threads
from edge_medgemma.runtime.tracing.spans import SpanRecorder

LOG = logging.getLogger(__name__)


class Engine:
    """Vision tower, decoder, tokenizer and prompt of one engine directory.

    Sessions open when they are first needed. An engine that is large for the device never holds
    both: encode all slices of a scan first, then prefill them.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        threads: int | None,
        providers: Providers,
        recorder: SpanRecorder,
        devices: Devices,
    ) -> None:
        """Use `Engine.open`, which checks the files."""
        self.directory = directory
        self.manifest = manifest
        self.tokenizer = Tokenizer(directory / "tokenizer.json", manifest.tokens)
        self.prompt = PromptBuilder.open(directory, self.tokenizer, manifest)
        prove_prompt(self.prompt, manifest.text.vocabulary, in_one_piece=False)
        self.grammars = Grammars(
            directory / "tokenizer.json", manifest, sorted(self.tokenizer.control_ids)
        )
        self._threads = threads or default_threads()
        self._providers = providers
        self._devices = devices
        self._choice: BackendSelection | None = None
        self._recorder = recorder
        self._embedding = Embedding(directory, manifest)
        self._vision: VisionModel | None = None
        self.vision_provider: Provider | None = None
        """Library that runs the vision tower; None until the first slice."""
        self._decoder: DecoderModel | None = None
        self._takes_turns_on_cpu = not fits_together(manifest, available_bytes())

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        threads: int | None = None,
        providers: Providers = AUTOMATIC,
        check_files: bool = True,
        recorder: SpanRecorder | None = None,
        devices: Devices = DEVICES,
    ) -> "Engine":
        """Open an engine directory.

        Args:
            directory: holds `manifest.json`
            threads: of the compute pool; None: as many as suit the processor's cores
            providers: which library runs which part
            check_files: compare every file with its SHA-256 first
            recorder: gets the times of checking, loading and resizing
            devices: GPUs that may run it, the first choice first

        Raises:
            EngineError: missing, altered, or of another version.
        """
        recorder = recorder or SpanRecorder(0)
        manifest = load_manifest(directory)
        if check_files:
            with recorder.span("check files"):
                check_engine(directory, manifest)
        return cls(directory, manifest, threads, providers, recorder, devices)

    def encode_images(
        self,
        pixels: NDArray[np.uint8],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """The image tokens of slices.

        Args:
            pixels: [N, rows, columns, 3]
            on_progress: called with slices done and slices in all

        Returns:
            [N, tokens_per_image, hidden]
        """
        vision = self.manifest.vision
        features = np.empty(
            (len(pixels), vision.tokens_per_image, self.manifest.text.hidden_size), np.float32
        )
        model = self._vision_model()
        for start in range(0, len(pixels), model.batch):
            part = slice(start, start + model.batch)
            with self._recorder.span("resize"):
                pixel_values = to_pixel_values(pixels[part], vision)
            try:
                features[part] = model.run(pixel_values)
            except ProviderError as error:
                model = self._vision_on_cpu(error)
                features[part] = model.run(pixel_values)
            if on_progress:
                on_progress(min(part.stop, len(pixels)), len(pixels))
        return features

    def new_prefix(self, expected_tokens: int = 0) -> Prefix:
        """An empty prefix; `expected_tokens` reserves its memory at once."""
        return Prefix(self.decoder_model(), self._embedding, self.manifest, expected_tokens)

    @property
    def vision_batch_size(self) -> int:
        """Slices per call of `encode_images` that suit what runs the vision tower."""
        return self._vision_model().batch

    @property
    def vision_identity(self) -> str:
        """All that image features depend on besides the pixels."""
        return self._identity(self.choice.vision)

    @property
    def decoder_identity(self) -> str:
        """All that keys and values depend on besides tokens and image features."""
        return self._identity(self.choice.decoder)

    @property
    def choice(self) -> BackendSelection:
        """Library of each part; a device has passed its self-test.

        Raises:
            DependencyError: the library of a named device is not installed.
            EngineError: a named device does not take this engine.
            ProviderError: a named device does not work here or fails its self-test, or nothing
                here runs the engine.
        """
        if self._choice is None:
            choice = choose(self.directory, self.manifest, self._providers, self._devices)
            self._choice = self._tested(choice)
        return self._choice

    @property
    def plan_slices(self) -> int | None:
        """Most slices that the plans built for the chosen device hold; None where nothing was built."""
        budget = self.choice.decoder_budget
        if budget is None or budget.rows is None:
            return None
        return slices_of(self.manifest, budget.rows)

    def slices_in_memory(self, shape: tuple[int, int], spare_bytes: int) -> int | None:
        """Most slices of `shape` that memory holds beside some spare bytes; None where a GPU computes."""
        if self.choice.decoder_budget is not None:
            return None
        return largest_slices(self.manifest, available_bytes() - spare_bytes, shape)

    def require_memory(self, slices: int, shape: tuple[int, int]) -> None:
        """Refuse slices of `shape` (rows, columns) that do not fit, before any of them is read.

        A GPU that `auto` chose and that cannot hold a single one is left for the CPU.

        Raises:
            ResourceError: too little memory, or the plans of the device hold fewer slices; the
                message says what would fit.
        """
        budget, available = self.choice.decoder_budget, available_bytes()
        if budget is not None:
            try:
                require_device_memory(self.manifest, slices, shape, budget, available)
                return
            except ResourceError as error:
                is_named = self._providers.decoder is not Provider.AUTO
                holds_some = largest_device_slices(self.manifest, budget, available, shape) > 0
                if is_named or holds_some or not self.fall_back(str(error)):
                    raise
        require_memory(self.manifest, slices, shape, available)

    def device_of(self, provider: Provider) -> DeviceBackend | None:
        """The GPU that was chosen under this name; None for a library of the CPU."""
        return self._devices[provider] if provider in self.choice.identities else None

    def fall_back(self, reason: str) -> bool:
        """Go on with the CPU after a device failed; False where it did not run, or a CPU cannot."""
        if self._choice is None or not self._choice.identities:
            return False
        try:
            self._choice = without_devices(self._choice, self.manifest, reason)
        except ProviderError:
            return False
        self.close()
        LOG.warning("the engine goes on with the CPU: %s", reason)
        return True

    def close(self) -> None:
        """Release both sessions; a prefix that is still in use keeps its own alive."""
        self._vision = None
        self._decoder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _identity(self, provider: Provider) -> str:
        found = self.choice.identities.get(provider) or provider_identity(provider)
        return f"{self.manifest.sha256} {provider} {found}"

    def _tested(self, choice: BackendSelection) -> BackendSelection:
        """The choice, or the CPU where `auto` chose a device that fails its self-test."""
        if not choice.identities:
            return choice
        name = " and ".join(choice.identities)
        identity = f"vision {choice.vision} decoder {choice.decoder} {choice.identities}"
        self._choice = choice  # the test runs on it
        try:
            with self._recorder.span("self-test"):
                require_agreement(self, name, identity)
            return choice
        except (ProviderError, EngineError) as error:
            self.close()
            self._choice = None
            if {self._providers.vision, self._providers.decoder} & set(choice.identities):
                raise
            fallen = without_devices(choice, self.manifest, str(error))
            LOG.warning("the engine runs on the CPU, not on %s: %s", name, error)
            return fallen

    def _takes_turns(self) -> bool:
        budget = self.choice.decoder_budget
        if budget is None:
            return self._takes_turns_on_cpu
        return not fits_together_on_device(self.manifest, budget, available_bytes())

    def _vision_model(self) -> VisionModel:
        if self._vision is None:
            provider = self.choice.vision
            if self._takes_turns():
                self._decoder = None
            with self._recorder.span("load vision"):
                device = self.device_of(provider)
                if device is not None:
                    model = device.open_vision(self.directory, self.manifest)
                    opened = OpenedVision(model, provider)
                else:
                    opened = open_vision(self.directory, self.manifest, provider, self._threads)
            self._vision, self.vision_provider = opened.model, opened.provider
        return self._vision

    def _vision_on_cpu(self, error: ProviderError) -> VisionModel:
        """The tower on onnxruntime, for good, where a faster library of the CPU failed that `auto` took.

        Raises:
            ProviderError: the given one, where a library was named or a GPU runs the tower.
        """
        if self.choice.vision is not Provider.AUTO or self.vision_provider is Provider.CPU:
            raise error
        LOG.warning("vision goes on with onnxruntime, not %s: %s", self.vision_provider, error)
        self._choice = replace(self.choice, vision=Provider.CPU)
        self._vision = None
        return self._vision_model()

    def decoder_model(self) -> DecoderModel:
        """The decoder on what was chosen for it, loaded when it is first asked for."""
        if self._decoder is None:
            provider = self.choice.decoder
            if self._takes_turns():
                self._vision = None
            with self._recorder.span("load decoder"):
                device = self.device_of(provider)
                if device is not None:
                    self._decoder = device.open_decoder(self.directory, self.manifest)
                else:
                    self._decoder = open_decoder(
                        self.directory, self.manifest, provider, self._threads
                    )
        return self._decoder
