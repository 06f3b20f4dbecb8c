"""Cost of a quantised engine, on slices and prompts that calibration did not look at."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.passes.layer_runner import GraphStages, StageSession
from edge_medgemma.calibration.passes.vision_pass import reference_rows
from edge_medgemma.calibration.prompts import Prompt, build_prompts, feeds_of
from edge_medgemma.calibration.record import Calibration
from edge_medgemma.calibration.slices import CalibrationSlice
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.images import to_pixel_values
from edge_medgemma.runtime.generation.sampling import log_softmax
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.triage.scoring.log_odds import AnswerTokens, log_odds

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """Error of the residual stream after a layer."""

    part: str
    """`vision` or `decoder`"""
    layer: int
    sqnr_db: float
    """Signal over error, 10 log10(sum x² / sum (x - y)²)"""
    cosine: float
    """Smallest cosine of a row with the float engine's"""


@dataclass(frozen=True, slots=True)
class FindingLoss:
    """Change of one finding's log-odds over the held-out prompts that ask for it."""

    code: str
    prompts: int
    mean_change: float
    largest_change: float
    flipped: int
    """Prompts whose answer turned, from yes being likelier than no to the contrary or back"""


@dataclass(frozen=True, slots=True)
class Loss:
    """The float engine against another, on held-out slices and prompts."""

    prompts: int
    answers: int
    kl_nats: float
    """Mean KL(float || engine) of the first answer token"""
    largest_kl_nats: float
    top1_agreement: float
    flags_flipped: float
    """Share of the answers that turned so"""
    image_cosine: float
    """Smallest cosine of an image token's features"""
    layers: tuple[LayerLoss, ...]
    findings: tuple[FindingLoss, ...]
    slice_kl_nats: tuple[float, ...]
    """Mean KL of the prompts that hold each held-out slice"""
    slice_cosine: tuple[float, ...]
    """Smallest cosine of an image token of each held-out slice"""


def measure_loss(
    engine: Engine,
    calibration: Calibration,
    *,
    residual_scale: float = 1.0,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Loss:
    """Run an engine over the held-out slices of a calibration and compare.

    Args:
        engine: made from the same checkpoint
        calibration: holds the float engine's answers
        residual_scale: what the engine's residual stream was divided by
        threads: of the compute pool
        on_progress: called with layers done and layers in all

    Raises:
        EngineError: the engine is asked other questions than the calibrated one was.
    """
    slices = calibration.held_out()
    stages = {part: GraphStages(engine.directory, part) for part in ("vision", "decoder")}
    total = sum(len(one) for one in stages.values())
    layers: list[LayerLoss] = []

    def on_layer(part: str, layer: int, streams: Sequence[Array]) -> None:
        if layer < len(stages[part].cuts):
            expected = calibration.reference(part, layer)
            scale = residual_scale if part == "decoder" else 1.0
            layers.append(_layer_loss(part, layer, expected, reference_rows(streams) * scale))
        if on_progress:
            on_progress(layer + (len(stages["vision"]) if part == "decoder" else 0), total)

    features = _encode(engine, stages["vision"], slices, threads, on_layer)
    prompts = build_prompts(engine, slices, range(len(slices)))
    logits = _answer(engine, stages["decoder"], prompts, features, threads, on_layer)
    return _compare(engine, calibration, prompts, logits, features * residual_scale, tuple(layers))


OnLayer = Callable[[str, int, Sequence[Array]], None]


def _encode(
    engine: Engine,
    stages: GraphStages,
    slices: Sequence[CalibrationSlice],
    threads: int | None,
    on_layer: OnLayer,
) -> Array:
    """Image features [slices, tokens, hidden]."""
    vision = engine.manifest.vision
    streams = [to_pixel_values(one.pixels[None], vision) for one in slices]
    for index in range(len(stages)):
        stage = stages.stage(index)
        session = StageSession(stage, stages.directory, threads)
        name, wanted = stage.stream_input or "pixel_values", [stage.stream_output]
        streams = [session.run({name: s}, wanted)[stage.stream_output] for s in streams]  # type: ignore[misc]
        on_layer("vision", index, [s[0] for s in streams])
    return np.concatenate(streams).astype(np.float32)


def _answer(
    engine: Engine,
    stages: GraphStages,
    prompts: Sequence[Prompt],
    features: Array,
    threads: int | None,
    on_layer: OnLayer,
) -> Array:
    """Logits [answers, vocabulary]."""
    embedding = Embedding(engine.directory, engine.manifest)
    feeds = [feeds_of(prompt, engine, embedding, features) for prompt in prompts]
    return decoder_logits(
        engine.manifest,
        stages,
        feeds,
        threads,
        lambda layer, streams: on_layer("decoder", layer, streams),
    )


def decoder_logits(
    manifest: Manifest,
    stages: GraphStages,
    prompts: Sequence[Mapping[str, NDArray[np.generic]]],
    threads: int | None,
    on_layer: Callable[[int, Sequence[Array]], None],
) -> Array:
    """Logits [rows asked for, vocabulary] of prompts that are read in one pass each, layer by layer.

    Args:
        manifest: of the engine
        stages: of its decoder
        prompts: inputs of the decoder, but for the caches
        threads: of the compute pool
        on_layer: called with the layer and the residual stream [tokens, hidden] of every prompt
    """
    text = manifest.text
    cache_dtype = np.float16 if manifest.precision.cache == "fp16" else np.float32
    no_rows = np.zeros((1, text.kv_heads, 0, text.head_dim), np.int8)
    no_scale = np.ones(text.kv_heads * text.head_dim, np.float32)
    streams: list[NDArray[np.generic]] = []
    for index in range(len(stages)):
        stage = stages.stage(index)
        session = StageSession(stage, stages.directory, threads)
        following: list[NDArray[np.generic]] = []
        for number, prompt in enumerate(prompts):
            feeds = dict(prompt)
            shape = (1, text.kv_heads, feeds["position_ids"].shape[1], text.head_dim)
            if streams:
                feeds[str(stage.stream_input)] = streams[number]
            empty = np.zeros(shape, cache_dtype)
            feeds |= {f"past_{kind}.{index}": empty for kind in ("key", "value")}
            feeds |= {f"past_{kind}_int8.{index}": no_rows for kind in ("key", "value")}
            feeds |= {f"{kind}_scale.{index}": no_scale for kind in ("key", "value")}
            following.append(session.run(feeds, [stage.stream_output])[stage.stream_output])
        streams = following
        is_layer = index < text.layers
        on_layer(index, [s[0].astype(np.float32) for s in streams] if is_layer else [])
    return np.concatenate(streams).astype(np.float32)


def _layer_loss(part: str, layer: int, expected: Array, actual: Array) -> LayerLoss:
    signal = float(np.square(expected, dtype=np.float64).sum())
    noise = float(np.square(actual - expected, dtype=np.float64).sum())
    sqnr = 10 * np.log10(signal / noise) if noise > 0 else np.inf
    return LayerLoss(part, layer, float(min(sqnr, 200.0)), float(_cosines(expected, actual).min()))


def _compare(
    engine: Engine,
    calibration: Calibration,
    prompts: Sequence[Prompt],
    logits: Array,
    features: Array,
    layers: tuple[LayerLoss, ...],
) -> Loss:
    expected = calibration.answers()
    if len(expected) != len(logits):
        raise EngineError(
            f"the engine is asked {len(logits)} questions, the calibration has {len(expected)} "
            "answers: the protocols or the engine's findings changed; calibrate again"
        )
    log_p, log_q = log_softmax(expected), log_softmax(logits)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    findings, flipped = _findings(engine, prompts, expected, logits)
    ends = np.cumsum([len(prompt.questions) for prompt in prompts]).tolist()
    slice_kl = np.zeros(len(features))
    for prompt, begin, end in zip(prompts, [0, *ends], ends, strict=False):
        slice_kl[list(prompt.slices)] = kl[begin:end].mean()
    cosines = _cosines(calibration.features(), features).min(axis=1)
    return Loss(
        prompts=len(prompts),
        answers=len(kl),
        kl_nats=float(kl.mean()),
        largest_kl_nats=float(kl.max()),
        top1_agreement=float((logits.argmax(-1) == expected.argmax(-1)).mean()),
        flags_flipped=flipped / len(kl),
        image_cosine=float(cosines.min()),
        layers=layers,
        findings=findings,
        slice_kl_nats=tuple(slice_kl.tolist()),
        slice_cosine=tuple(cosines.tolist()),
    )


def _findings(
    engine: Engine, prompts: Sequence[Prompt], expected: Array, actual: Array
) -> tuple[tuple[FindingLoss, ...], int]:
    """Per finding, and the number of answers that turned in all."""
    tokens = AnswerTokens.of(engine.tokenizer)
    before, after = log_odds(expected, tokens), log_odds(actual, tokens)
    asked = [finding for prompt in prompts for finding in prompt.questions]
    changes: dict[str, list[float]] = defaultdict(list)
    flips: dict[str, int] = defaultdict(int)
    for finding, old, new in zip(asked, before.tolist(), after.tolist(), strict=True):
        changes[finding.code].append(new - old)
        flips[finding.code] += (old >= 0) != (new >= 0)
    losses = tuple(
        FindingLoss(
            code,
            len(values),
            float(np.mean(values)),
            float(np.abs(values).max()),
            flips[code],
        )
        for code, values in changes.items()
    )
    return losses, sum(flips.values())


def _cosines(a: Array, b: Array) -> Array:
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines: Array = (a * b).sum(-1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return cosines
