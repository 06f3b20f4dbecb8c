"""A calibration from beginning to end: slices in, calibration.json out."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma import __version__
from edge_medgemma.calibration.passes.decoder_pass import DecoderPass
from edge_medgemma.calibration.passes.layer_runner import GraphStages
from edge_medgemma.calibration.passes.vision_pass import VisionPass
from edge_medgemma.calibration.prompts import Prompt, build_prompts, feeds_of, prose_prompt
from edge_medgemma.calibration.record import (
    SCHEMA_VERSION,
    Calibration,
    InputRange,
    SliceSummary,
    data_folder,
    save_calibration,
)
from edge_medgemma.calibration.resume_store import State
from edge_medgemma.calibration.slices import CalibrationSlice, SliceSet
from edge_medgemma.runtime.domain import Features, pool_tokens
from edge_medgemma.runtime.errors import EngineError, ResourceError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.images import to_pixel_values
from edge_medgemma.runtime.host import available_bytes
from edge_medgemma.runtime.manifest import Manifest, file_sha256
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

Progress = Callable[[int, int], None]

WORKING_COPIES = 2
"""A stage's weights are in memory as mapped and as onnxruntime packs them."""


def calibrate_engine(
    engine: Engine,
    slice_set: SliceSet,
    output: Path,
    *,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> Calibration:
    """Run the float engine over the slices and write `output` and the folder beside it.

    Goes on where an interrupted run with the same engine, slices and seed stopped.

    Raises:
        EngineError: the engine is quantised, or its numbers are not finite.
        ResourceError: too little memory, or the disk is full.
    """
    precision = engine.manifest.precision
    if {precision.decoder, precision.head, precision.vision} != {"fp32"}:
        raise EngineError(
            f"'{engine.directory.name}' is quantised already; calibrate a checkpoint or an engine "
            "exported with --precision fp32"
        )
    stages = {part: GraphStages(engine.directory, part) for part in ("vision", "decoder")}
    check_memory(
        needed_bytes(engine.manifest, stages, len(slice_set.slices) + len(slice_set.held_out))
    )
    identity = {
        "engine": engine.manifest.sha256,
        "slices": slice_set.sha256,
        "seed": slice_set.seed,
        "version": __version__,
        "schema": SCHEMA_VERSION,
    }
    state = State(data_folder(output), identity)
    runner = _Run(engine, slice_set, stages, state, threads, on_progress)
    calibration = runner.run()
    save_calibration(output, calibration)
    return calibration


class _Run:
    """The two passes over one engine."""

    def __init__(
        self,
        engine: Engine,
        slice_set: SliceSet,
        stages: dict[str, GraphStages],
        state: State,
        threads: int | None,
        on_progress: Progress | None,
    ) -> None:
        self._engine = engine
        self._slice_set = slice_set
        self._stages = stages
        self._state = state
        self._threads = threads
        self._on_progress = on_progress
        self._slices = (*slice_set.slices, *slice_set.held_out)

    def run(self) -> Calibration:
        engine, state = self._engine, self._state
        calibrated, held = len(self._slice_set.slices), len(self._slice_set.held_out)
        features = VisionPass(
            self._stages["vision"],
            state,
            self._pixel_values,
            [False] * calibrated + [True] * held,
            self._threads,
        ).run(self._advance)
        numbers = list(range(calibrated + held))
        first = (
            *build_prompts(engine, self._slice_set.slices, numbers[:calibrated]),
            prose_prompt(engine),
        )
        last = build_prompts(engine, self._slice_set.held_out, numbers[calibrated:])
        embedding = Embedding(engine.directory, engine.manifest)

        def feeds(prompt: Prompt) -> dict[str, NDArray[np.generic]]:
            return feeds_of(prompt, engine, embedding, features)

        passes = DecoderPass(
            self._stages["decoder"],
            engine.manifest.text,
            state,
            (*first, *last),
            feeds,
            [False] * len(first) + [True] * len(last),
            self._threads,
        )
        offset = len(self._stages["vision"])
        passes.run(lambda layer: self._advance(offset + layer))
        state.save("features", {"held_out": features[calibrated:]})
        save_held_out(state, self._slice_set.held_out)
        save_studies(state, self._slice_set, pool_tokens(features))
        for part in ("vision", "decoder"):
            for index in range(len(self._stages[part])):
                state.drop(f"{part}_stream.{index}")
        return self._calibration()

    def _calibration(self) -> Calibration:
        manifest, slice_set, state = self._engine.manifest, self._slice_set, self._state
        vision: dict[str, InputRange] = {}
        peaks: dict[str, float] = {}
        for part in ("vision", "decoder"):
            for index in range(len(self._stages[part])):
                if not state.has(f"{part}.{index}"):
                    continue  # the decoder's tail has no group
                _, note = state.load(f"{part}.{index}")
                peaks |= note["peaks"]
                vision |= {k: InputRange(**v) for k, v in note.get("linears", {}).items()}
        strata = Counter(" · ".join(one.stratum) for one in slice_set.slices)
        return Calibration(
            schema_version=SCHEMA_VERSION,
            program_version=__version__,
            checkpoint_sha256=manifest.source.sha256,
            checkpoint_name=manifest.source.name,
            slices=SliceSummary(
                scans=slice_set.scans,
                series=slice_set.series,
                calibrated=len(slice_set.slices),
                held_out=len(slice_set.held_out),
                seed=slice_set.seed,
                sha256=slice_set.sha256,
                strata=dict(sorted(strata.items())),
                warnings=slice_set.warnings,
            ),
            vision=vision,
            peaks=peaks,
            files={path.name: file_sha256(path) for path in _own_files(state.folder)},
            folder=state.folder,
        )

    def _pixel_values(self, number: int) -> NDArray[np.float32]:
        return to_pixel_values(self._slices[number].pixels[None], self._engine.manifest.vision)

    def _advance(self, stage: int) -> None:
        if self._on_progress is not None:
            total = sum(len(stages) for stages in self._stages.values())
            self._on_progress(stage + 1, total)


def _own_files(folder: Path) -> list[Path]:
    """Files of the calibration, without the integers that exports keep there."""
    return sorted(p for p in folder.glob("*.npz") if not p.name.startswith("searched."))


def save_held_out(state: State, slices: Sequence[CalibrationSlice]) -> None:
    """Keep the held-out slices, so that an export can measure its loss without the scans."""
    arrays = {str(i): one.pixels for i, one in enumerate(slices)}
    note = [[one.series, one.modality, one.body_part, one.preset, one.band] for one in slices]
    state.save("held_out", arrays, {"slices": note})


def save_studies(state: State, slice_set: SliceSet, pooled: Features) -> None:
    """Keep the mean image tokens of every slice by study, of which an export fits its domain."""
    rows: dict[tuple[int, Modality, BodyPart], list[int]] = defaultdict(list)
    scanners: dict[tuple[int, Modality, BodyPart], str] = {}
    for row, one in enumerate((*slice_set.slices, *slice_set.held_out)):
        number = slice_set.study_of_series[one.series] if slice_set.study_of_series else one.series
        key = (number, one.modality, one.body_part)
        rows[key].append(row)
        scanners[key] = slice_set.scanners[one.series] if slice_set.scanners else ""
    arrays = {str(i): pooled[places] for i, places in enumerate(rows.values())}
    note = [
        [modality, body_part, scanners[key]] for key in rows for _, modality, body_part in [key]
    ]
    state.save("domain", arrays, {"studies": note})


def needed_bytes(manifest: Manifest, stages: dict[str, GraphStages], slices: int) -> int:
    """Memory that a calibration of this engine takes at its peak, roughly."""
    vision, text = manifest.vision, manifest.text
    patches = (vision.image_size // vision.patch_size) ** 2
    stream = 4 * patches * vision.hidden_size * slices
    # The decoder's tail is multiplied where it is mapped, without packing.
    largest = max(stages["vision"].bytes(0), stages["decoder"].bytes(0))
    gram = 4 * text.intermediate_size * min(text.intermediate_size, 2560) * 2
    head = 4 * text.hidden_size * text.vocabulary
    return max(stream * 2 + largest * WORKING_COPIES + gram, head)


def check_memory(needed: int) -> None:
    """Refuse what does not fit into memory, before it is begun.

    Raises:
        ResourceError: less memory is available than `needed` bytes.
    """
    available = available_bytes()
    if needed > available:
        raise ResourceError(
            f"calibration needs about {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB is "
            "available; close other programs, or choose fewer --slices"
        )
