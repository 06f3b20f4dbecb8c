"""Training sequences: a scan as one prefix, and every question about it as a branch of its own.

The ids come from the runtime's prompt builder and the masks from the runtime's mask code, so the
network learns on exactly what it will read on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS, FRACTURE, HAEMORRHAGE, MASS_EFFECT
from edge_medgemma.export.demo.network import SLIDING_WINDOW
from edge_medgemma.export.demo.vocabulary import TOKENS
from edge_medgemma.runtime.generation.masks import NO_BRANCH, NO_IMAGE, TokenMeta, additive_mask
from edge_medgemma.runtime.generation.prompt import PromptBuilder
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.triage.scoring.questions import FINAL_ANSWER, REASONING_REQUEST

END_OF_TURN = TOKENS.stop[1]
IGNORED = -100
"""Label of a position that teaches nothing; torch's cross_entropy default."""

OPEN_QUESTIONS = (
    "Describe the findings.",
    "What do you see?",
    "Which findings are present?",
    "Describe the scan.",
)
SENTENCES = {
    HAEMORRHAGE: "There is an intracranial hemorrhage.",
    MASS_EFFECT: "There is a mass effect with midline shift.",
    FRACTURE: "There is a skull fracture.",
}
ABSENCES = {
    HAEMORRHAGE: "There is no intracranial hemorrhage.",
    MASS_EFFECT: "There is no mass effect.",
    FRACTURE: "There is no skull fracture.",
}
NOTHING_FOUND = "No hemorrhage, no mass effect and no fracture is seen."


def description(findings: frozenset[str]) -> str:
    """Sentences that the engine is taught to say of a scan."""
    sentences = [SENTENCES[code] for code in FINDINGS if code in findings]
    return " ".join(sentences) or NOTHING_FOUND


def spoken_texts() -> tuple[str, ...]:
    """All that the engine is taught to say or to be asked beyond the protocol."""
    return (
        *SENTENCES.values(),
        *ABSENCES.values(),
        NOTHING_FOUND,
        *OPEN_QUESTIONS,
        REASONING_REQUEST.strip(),
        f"{FINAL_ANSWER} yes",
        f"{FINAL_ANSWER} no",
    )


@dataclass(frozen=True, slots=True)
class SpokenQuestion:
    """A question answered in words."""

    text: str
    code: str | None
    """The finding that it asks to reason about; None asks for all."""

    def answer(self, findings: frozenset[str]) -> str:
        """The report of a scan with these findings."""
        if self.code is None:
            return description(findings)
        if self.code in findings:
            return f"{SENTENCES[self.code]} {FINAL_ANSWER} yes"
        return f"{ABSENCES[self.code]} {FINAL_ANSWER} no"


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything of a training sequence that does not depend on the scan."""

    ids: NDArray[np.int64]
    """[S]: prefix, then the branches; answers are filled in per scan."""
    position_ids: torch.Tensor
    """[1, S]"""
    masks: dict[str, torch.Tensor]
    """Per layer type: [1, 1, S, S] additive."""
    image_rows: torch.Tensor
    """[image tokens]: indices into the sequence."""
    label_rows: torch.Tensor
    """[slices]: where each slice's label ends."""
    spoken: SpokenQuestion | None
    """The question of the last branch, behind those of the findings."""
    answers: tuple[slice, ...]
    """Per branch: where the answer stands, end of turn and padding included."""


class Dialogue:
    """Builds layouts and fills in the answers."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        builder: PromptBuilder,
        instruction: str,
        questions: Sequence[str],
    ) -> None:
        self._tokenizer = tokenizer
        self._builder = builder
        self._instruction = instruction
        self._questions = tuple(questions)
        """Presence of each of FINDINGS, in their order."""
        self._spoken_tokens = len(tokenizer.encode(description(frozenset(FINDINGS)))) + 1
        self.yes, self.no = (self._single(word) for word in ("Yes", "No"))

    def _single(self, word: str) -> int:
        (token,) = self._tokenizer.encode(word)
        return token

    def spoken_question(self, rng: np.random.Generator) -> SpokenQuestion:
        """An open question, or one of the protocol's with the request to reason first."""
        choice = int(rng.integers(2 * len(FINDINGS)))
        if choice < len(FINDINGS):
            return SpokenQuestion(self._questions[choice] + REASONING_REQUEST, FINDINGS[choice])
        return SpokenQuestion(str(rng.choice(OPEN_QUESTIONS)), None)

    def layout(self, slices: int, spoken: SpokenQuestion | None = None) -> Layout:
        """The sequence of a scan of so many slices with a branch for every question."""
        chunks = self._builder.prefix(self._instruction, slices)
        ids = [token for chunk in chunks for token in chunk.ids]
        prefix = len(ids)
        label_rows = torch.tensor([len(chunk.ids) for chunk in chunks]).cumsum(0)[1:] - 1
        images = np.full(prefix, NO_IMAGE, np.int64)
        is_image = np.array(ids) == TOKENS.image
        images[is_image] = np.repeat(np.arange(slices), is_image.sum() // slices)
        positions, branches = [*range(prefix)], [NO_BRANCH] * prefix
        answers = []
        texts = [*self._questions, *([spoken.text] if spoken else [])]
        for branch, text in enumerate(texts):
            question = self._builder.question(text)
            room = 2 if branch < len(self._questions) else self._spoken_tokens
            answers.append(slice(len(ids) + len(question), len(ids) + len(question) + room))
            ids += [*question, *[TOKENS.pad] * room]
            positions += range(prefix, prefix + len(question) + room)
            branches += [branch] * (len(question) + room)
        images = np.pad(images, (0, len(ids) - prefix), constant_values=NO_IMAGE)
        rows = TokenMeta(
            np.array(positions), images, np.zeros(len(ids), np.int64), np.array(branches)
        )
        return Layout(
            ids=np.array(ids),
            position_ids=torch.tensor(positions)[None],
            masks={
                "full_attention": torch.from_numpy(additive_mask(rows, rows, None)),
                "sliding_attention": torch.from_numpy(additive_mask(rows, rows, SLIDING_WINDOW)),
            },
            image_rows=torch.from_numpy(np.flatnonzero(images != NO_IMAGE)),
            label_rows=label_rows,
            spoken=spoken,
            answers=tuple(answers),
        )

    def fill(
        self, layout: Layout, findings: Sequence[frozenset[str]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids [B, S] with the answers for scans with these findings, and labels [B, S]: at each
        position the token to say next, or IGNORED."""
        ids = np.repeat(layout.ids[None], len(findings), 0)
        labels = np.full(ids.shape, IGNORED, np.int64)
        for row, present in enumerate(findings):
            replies = [[self.yes if code in present else self.no] for code in FINDINGS]
            if layout.spoken is not None:
                replies.append(self._tokenizer.encode(layout.spoken.answer(present)))
            for where, reply in zip(layout.answers, replies, strict=True):
                answer = [*reply, END_OF_TURN]
                stop = where.start + len(answer)
                ids[row, where.start : stop] = answer
                labels[row, where.start - 1 : stop - 1] = answer
        return torch.from_numpy(ids), torch.from_numpy(labels)
