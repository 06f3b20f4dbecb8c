"""The document `vqa.json`: one dataclass for each object of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge_medgemma.calibration.evaluation.document import EngineProvenance, Proportion
from edge_medgemma.calibration.evaluation.language.figures import MeanScore
from edge_medgemma.calibration.evaluation.language.paired_answers import MeanChange, PairedAnswers
from edge_medgemma.runtime.documents import Count, Sha256, Size


@dataclass(frozen=True, slots=True)
class VqaDatasetEntry:
    """The questions."""

    layout: str
    split: str
    language: str
    sha256: Sha256
    """Of the file of questions."""
    questions: Count
    pictures: Count
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptEntry:
    """How every question was put."""

    name: str
    source: str
    template: str
    sha256: Sha256
    """Of all that shapes the prompt; it stands in every row."""
    max_tokens: Count
    system: Literal["none"]
    """Google's notebooks of MedGemma 1.5 have no system turn."""


@dataclass(frozen=True, slots=True)
class VqaRow:
    """One engine on one kind of question: what a published figure must say to be reproduced."""

    dataset: str
    split: str
    prompt: str
    prompt_sha256: Sha256
    engine_sha256: Sha256
    by: str
    """`all`, `modality`, `organ`, `kind` or `language`."""
    value: str
    questions: Count
    pictures: Count
    closed: Proportion
    """Closed questions answered exactly, after normalisation. Wilson, questions taken as independent."""
    open_exact: Proportion
    open_token_f1: MeanScore
    """Intervals of token F1 resample pictures."""
    token_f1: MeanScore
    """Over closed and open questions."""


@dataclass(frozen=True, slots=True)
class VqaEngineEntry:
    """One engine's results."""

    engine: EngineProvenance
    rows: tuple[VqaRow, ...]
    endings: Mapping[str, Count]
    """Why answers ended -> questions; `stop` is the model's own end, `not_asked` a question that spells
    a control token and counts as wrong."""
    not_yes_or_no: Size
    """Closed questions with the reference yes or no whose answer is neither; they count as wrong."""


@dataclass(frozen=True, slots=True)
class VqaFlip:
    """A question that one engine alone answers exactly."""

    key: str
    is_closed: bool
    is_right_first: bool
    is_right_second: bool


@dataclass(frozen=True, slots=True)
class VqaComparison:
    """A second engine on the same questions, in pairs."""

    second: VqaEngineEntry
    closed: PairedAnswers
    """Exactly answered."""
    open: PairedAnswers
    token_f1_change: MeanChange
    changed_answers: Size
    """Questions whose normalised answers differ, right or wrong."""
    flips: tuple[VqaFlip, ...]


@dataclass(frozen=True, slots=True)
class VqaDocument:
    """Answers to questions about pictures, counted by 'edge-medgemma evaluate vqa'."""

    schema_version: Literal[1]
    intended_use: str
    created_at: str
    """UTC by the device's clock, ISO 8601."""
    program_version: str
    dataset: VqaDatasetEntry
    prompt: PromptEntry
    first: VqaEngineEntry
    comparison: VqaComparison | None = None
