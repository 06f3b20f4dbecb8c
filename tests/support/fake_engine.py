"""A deterministic stand-in for the generation room: words as tokens, one grey value as lesion."""

import hashlib
import re
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from edge_medgemma.runtime.domain import (
    DOMAIN_FILE,
    Domain,
    DomainPart,
    FeatureSpace,
    ScanKind,
    dump_domain,
)
from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.generation.kv_index import PrefixSnapshot
from edge_medgemma.runtime.generation.masks import NO_TOKENS, TokenMeta
from edge_medgemma.runtime.generation.outputs import FinishReason, Step
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.manifest import (
    FileRecord,
    Manifest,
    Precision,
    Scope,
    Source,
)
from edge_medgemma.runtime.memory.host_memory import largest_slices, require_memory
from edge_medgemma.runtime.model_shape import TextSpec, TokenSpec, VisionSpec
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.report import Effort
from edge_medgemma.runtime.triage.scoring.operating_points import (
    THRESHOLDS_NAME,
    OperatingPoint,
    OperatingPoints,
    ProtocolPoints,
    Rate,
    Sample,
    Split,
    write_operating_points,
)

WORDS = ["<pad>", "<bos>", "<turn>", "<image>", "<think>", "</think>", "yes", "Yes", "YES"]
WORDS += ["no", "No", "NO"]
STOP, IMAGE, THOUGHT_BEGIN, THOUGHT_END = 2, 3, 4, 5
YES, OTHER = slice(6, 9), 12
YES_BIAS = 3.0
"""The fake says yes to everything by this much, as real models do."""
TISSUE_LOG_ODDS = -0.5
"""Any tissue at all makes every pathology a little less likely."""
LESION_LOG_ODDS = 300.0
"""Per fraction of the slice that the lesion fills, in the slice where it is largest."""


def demo_scope(
    notice: str = "drawn phantoms only",
    findings: Sequence[str] = ("intracranial_haemorrhage", "mass_effect", "skull_fracture"),
) -> Scope:
    """Scope of a demo engine that knows `findings` of a CT of the head."""
    return Scope(
        is_demonstration=True,
        notice=notice,
        protocol="head_ct_demo",
        modalities=(Modality.CT,),
        body_parts=(BodyPart.HEAD,),
        findings=tuple(findings),
    )


def known_domain(farthest: float = 1e3, width: int = 2) -> Domain:
    """The domain of an engine that was calibrated on CTs of heads no farther out than this."""
    space = FeatureSpace(np.zeros(width, np.float32), np.eye(1, width, dtype=np.float32),
                         np.ones(1, np.float32), 1.0)  # fmt: skip
    distances = np.full(4, farthest, np.float32)
    kind = ScanKind(Modality.CT, BodyPart.HEAD, ())
    return Domain((DomainPart(kind, space, distances, distances),))


def fake_manifest(scope: Scope | None = None) -> Manifest:
    text = TextSpec(
        1, 2, 1, 1, 1, 2, 4096, 1024, (True,), 1e-6, 1.0, 1e6, 8.0, 1e4, 2**0.5, 8192
    )  # fmt: skip
    vision = VisionSpec(1, 1, 1, 1, 16, 4, 1, 1e-6, (0.5,) * 3, (0.5,) * 3)
    tokens = TokenSpec(1, 0, (STOP,), IMAGE, 4094, 4095, THOUGHT_BEGIN, THOUGHT_END)
    return Manifest(
        schema_version=1,
        architecture="fake",
        text=text,
        vision=vision,
        tokens=tokens,
        precision=Precision("int4", "int8", "int8", "fp32", 2),
        source=Source("checkpoint", "fake-engine", None, "0" * 64, None),
        tools={},
        files={},
        licence="Apache-2.0",
        scope=scope,
    )


def operating_points(
    engine_sha256: str, platt: Mapping[str, tuple[float, float]]
) -> OperatingPoints:
    protocol = load_protocol("head_ct_demo")
    sample, rate = Sample(8, 8, 4, 4), Rate(4, 4, 0.5, 1.0)
    findings = tuple(
        OperatingPoint(code, -intercept / slope, slope, intercept, None, sample, sample,
                       Split.HELD_OUT, rate, rate)
        for code, (slope, intercept) in platt.items()
    )  # fmt: skip
    entry = ProtocolPoints(protocol.name, protocol.sha256, Effort.FAST, 24, 24, findings)
    return OperatingPoints(1, "0", engine_sha256, "phantoms", None, (), (entry,))


class FakeTokenizer:
    def __init__(self) -> None:
        self.words = list(WORDS)
        self.texts: list[str] = []

    def encode(self, text: str) -> list[int]:
        if "<turn>" in text:
            raise ProtocolError("the text holds the control token <turn>; remove it and ask again")
        self.texts.append(text)
        ids = []
        for word in re.findall(r"\s*[\w']+|\s*[^\w\s]", text):
            bare = word.strip() if word.strip() in WORDS else word
            if bare not in self.words:
                self.words.append(bare)
            ids.append(self.words.index(bare))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.words[i] for i in ids if i > THOUGHT_END)


class FakePrompt:
    def __init__(self, tokenizer: FakeTokenizer) -> None:
        self._tokenizer = tokenizer

    def prefix(self, instruction: str, slices: int) -> tuple[Chunk, ...]:
        labels = [self._tokenizer.encode(f"SLICE {n}") for n in range(1, slices + 1)]
        opening = Chunk(tuple(self._tokenizer.encode(instruction)), 0)
        return (opening, *(Chunk((IMAGE, *label), 1) for label in labels))

    def question(self, text: str) -> tuple[int, ...]:
        return (*self._tokenizer.encode(text), STOP)


class FakePrefix:
    """Log-odds of a question: a bias, plus brightness of the slices it may see."""

    def __init__(self, engine: "FakeEngine") -> None:
        self._engine = engine
        self._slices: list[tuple[float, float]] = []
        self.length = 0

    def extend(self, chunk: Chunk, features=None, *, wants_logits=True) -> None:
        self.length += len(chunk.ids)
        self._engine.prompt_ids.extend(chunk.ids)
        if chunk.images:
            self._slices.extend((float(f[0, 0]), float(f[0, 1])) for f in features)

    def compact(self) -> None:
        pass

    def snapshot(self) -> PrefixSnapshot:
        text = np.full(self.length, -1)
        rows = TokenMeta(np.arange(self.length), text, text, text)
        slices = np.array(self._slices, np.float32).reshape(-1, 2)
        return PrefixSnapshot(rows, NO_TOKENS, len(slices), len(slices) + 1, [slices], [])

    def restore(self, snapshot: PrefixSnapshot) -> None:
        self.length = len(snapshot.global_rows)
        (slices,) = snapshot.global_arrays
        self._slices = [(float(lesion), float(tissue)) for lesion, tissue in slices]

    def score(
        self,
        questions: Sequence[Sequence[int]],
        hidden_chunks: Sequence[Collection[int]] | None = None,
    ) -> np.ndarray:
        self._engine.questions_asked += len(questions)
        logits = np.zeros((len(questions), 4096), np.float32)
        for row, question in enumerate(questions):
            self._engine.prompt_ids.extend(question)
            hidden = hidden_chunks[row] if hidden_chunks else ()
            seen = [one for i, one in enumerate(self._slices) if i + 1 not in hidden]
            tissue = max((one[1] for one in seen), default=0.0)
            lesion = max((one[0] for one in seen), default=0.0)
            if self._engine.pathology not in self._engine.tokenizer.decode(question):
                lesion = 0.0
            odds = YES_BIAS + TISSUE_LOG_ODDS * (tissue > 0) + LESION_LOG_ODDS * lesion
            logits[row, YES] = odds
            logits[row, OTHER] = 20.0  # what is neither yes nor no must not matter
        return np.full_like(logits, np.nan) if self._engine.broken else logits

    def generate(
        self, ids: Sequence[int], sampling, max_tokens: int, constraint=None
    ) -> Generator[Step, None, FinishReason]:
        self._engine.prompt_ids.extend(ids)
        for count, token_id in enumerate(self._engine.reply[:max_tokens], start=1):
            yield Step(token_id, 0.0, 0.1 * count)
        return FinishReason.STOP if len(self._engine.reply) < max_tokens else FinishReason.LENGTH


class FakeEngine:
    def __init__(self, scope: Scope | None = None, pathology: str = "hemorrhage") -> None:
        self.manifest = fake_manifest(scope)
        self.directory = Path()
        self.vision_identity = self.decoder_identity = "fake"
        self.tokenizer = FakeTokenizer()
        self.prompt = FakePrompt(self.tokenizer)
        self.pathology = pathology
        """Questions with this word see the lesion."""
        self.broken = False
        """Every logit is NaN."""
        self.reply: list[int] = []
        self.prompt_ids: list[int] = []
        self.questions_asked = 0
        self.images_encoded = 0
        self.available_bytes = 10**12
        """Memory of the machine, where it matters."""

    def calibrate(self, folder: Path, domain: Domain) -> Self:
        """The engine, with this domain as a file in `folder`."""
        folder.mkdir(exist_ok=True)
        data = dump_domain(domain)
        (folder / DOMAIN_FILE).write_bytes(data)
        record = FileRecord(len(data), hashlib.sha256(data).hexdigest())
        self.directory = folder
        self.manifest = replace(self.manifest, files={DOMAIN_FILE: record})
        return self

    def fit(self, platt: Mapping[str, tuple[float, float]], **changes: object) -> Self:
        """The engine, with thresholds at even chance for protocol head_ct_demo beside it.

        Slope and intercept by finding; `changes` are of the one entry, or of the file.
        """
        points = operating_points(self.manifest.sha256, platt)
        entry = {
            name: value for name, value in changes.items() if hasattr(points.protocols[0], name)
        }
        other = {name: value for name, value in changes.items() if name not in entry}
        points = replace(points, protocols=(replace(points.protocols[0], **entry),), **other)
        write_operating_points(points, self.directory / THRESHOLDS_NAME)
        return self

    vision_batch_size = 1

    plan_slices: int | None = None
    """Of plans; nothing was built for this engine."""

    def slices_in_memory(self, shape: tuple[int, int], spare_bytes: int) -> int:
        return largest_slices(self.manifest, self.available_bytes - spare_bytes, shape)

    def require_memory(self, slices: int, shape: tuple[int, int]) -> None:
        require_memory(self.manifest, slices, shape, self.available_bytes)

    def encode_images(self, pixels: np.ndarray, on_progress=None) -> np.ndarray:
        """[N, 1, 2]: fraction of the slice that is lesion, and that is tissue."""
        self.images_encoded += len(pixels)
        brain = pixels[..., 2]  # 0 to 80 HU: the lesion is bright, bone saturates
        parts = [(brain > 200) & (brain < 255), brain > 0]
        return np.stack([p.mean(axis=(1, 2), dtype=np.float32) for p in parts], -1)[:, None]

    def new_prefix(self, expected_tokens: int = 0) -> FakePrefix:
        return FakePrefix(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass
