"""Wordings under which a picture is asked about, each named by where it comes from.

A score depends on the wording as much as on the model: the name and the hash of the wording stand in
every row of results.
"""

import hashlib
from dataclasses import dataclass

ANSWER_MARK = "Final Answer:"
"""What MedGemma's notebooks let the model write ahead of its answer."""


@dataclass(frozen=True, slots=True)
class PromptForm:
    """One wording: the user's turn is the picture, then the text; there is no system turn."""

    name: str
    source: str
    template: str
    """Text behind the picture, `{question}` in it."""
    max_tokens: int
    """Longest answer of the source."""
    is_square: bool = False
    """Whether the picture is padded with black to a square, as the source does."""
    has_answer_mark: bool = False
    """Whether only what follows the last "Final Answer:" is the answer."""

    @property
    def sha256(self) -> str:
        """Hash of all that shapes the prompt: template, padding and what counts as the answer."""
        content = f"image,text\n{self.is_square}\n{self.has_answer_mark}\n{self.template}"
        return hashlib.sha256(content.encode()).hexdigest()

    def text(self, question: str) -> str:
        """The text behind the picture."""
        return self.template.replace("{question}", question.strip())

    def answer_of(self, reply: str) -> str:
        """The part of a reply that is the answer."""
        if not self.has_answer_mark:
            return reply.strip()
        return reply.rpartition(ANSWER_MARK)[2].strip()


_NOTEBOOK = "Google-Health/medgemma notebooks/cxr_anatomy_localization_with_hugging_face.ipynb"

PROMPT_FORMS: dict[str, PromptForm] = {
    form.name: form
    for form in (
        PromptForm(
            "short",
            f"layout of {_NOTEBOOK}; last sentence of lmms-eval tasks/slake",
            "{question}\nAnswer the question using a single word or phrase.",
            32,
        ),
        PromptForm("question", f"layout of {_NOTEBOOK}; the question alone", "{question}", 300),
        PromptForm(
            "final-answer",
            f"{_NOTEBOOK}: its wording less the bounding boxes, picture padded to a square",
            "Query:\n{question} Don't give a final answer without reasoning. Output the final answer "
            'in the format "Final Answer: X". Answer:',
            1000,
            is_square=True,
            has_answer_mark=True,
        ),
    )
}
"""By name. MedGemma 1.5's notebook of a single picture sets the order: picture first, text last."""

REPORT_FORM = PromptForm(
    "describe",
    f"layout of {_NOTEBOOK}; text of quick_start_with_hugging_face.ipynb there",
    "Describe this X-ray",
    300,
)
"""How a report on a picture is asked for."""
