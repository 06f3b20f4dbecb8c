"""Yes-or-no questions to the model about the slices of a prefix."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.outputs import FinishReason, stop_repetition
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.reasoning_split import Reply
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.progress import Progress, no_progress
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.scoring.findings import Answers
from edge_medgemma.runtime.triage.scoring.log_odds import AnswerTokens, log_odds

REASONING_TOKENS = 2000
"""max_new_tokens of Google's CT notebook (high_dimensional_ct_hugging_face.ipynb)."""

REASONING_REQUEST = (
    " Please provide your reasoning and conclude with a 'Final Answer: yes' or 'Final Answer: no'."
)
"""Wording of the same notebook."""

FINAL_ANSWER = "Final Answer:"

UNFINISHED = {
    FinishReason.LENGTH: "was cut at its token budget",
    FinishReason.REPETITION: "was stopped because the model repeats itself",
    FinishReason.CONTEXT: "was cut where the engine reads no more tokens",
}


def assessed_findings(protocol: Protocol, manifest: Manifest) -> tuple[Finding, ...]:
    """The findings of a protocol that this engine may be asked about."""
    if manifest.scope is None:
        return protocol.findings
    return tuple(f for f in protocol.findings if f.code in manifest.scope.findings)


def ask_fast(engine: Engine, prefix: Prefix, findings: Sequence[Finding]) -> Answers:
    """Answers to all findings in one forward pass, scored at the first token of the answer."""
    if not findings:
        return Answers({})
    questions = [engine.prompt.question(f.question) for f in findings]
    odds = log_odds(prefix.score(questions), AnswerTokens.of(engine.tokenizer))
    return Answers({f.code: float(value) for f, value in zip(findings, odds, strict=True)})


def ask_reasoned(
    engine: Engine,
    prefix: Prefix,
    findings: Sequence[Finding],
    on_progress: Progress = no_progress,
) -> Answers:
    """Answers to one finding after the other, scored at the model's own "Final Answer:"."""
    tokens = AnswerTokens.of(engine.tokenizer)
    values: dict[str, float] = {}
    problems = []
    for done, finding in enumerate(findings, start=1):
        reasoning = reason(engine, prefix, finding.question)
        values[finding.code] = float(log_odds(prefix.score([reasoning.ids]), tokens)[0])
        if reasoning.ending in UNFINISHED:
            detail = f"Reasoning about {finding.code} {UNFINISHED[reasoning.ending]}."
            problems.append(Problem("reasoning_not_finished", detail))
        on_progress("score", done, len(findings))
    return Answers(values, tuple(problems))


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A question continued by the model's own reasoning, up to its final answer."""

    ids: tuple[int, ...]
    """Question, reasoning and "Final Answer:"; the next token is the answer."""
    ending: FinishReason
    """`STOP` where the model came to its own end, its thought closed."""


def reason(engine: Engine, prefix: Prefix, question: str) -> Reasoning:
    """Let the model reason, greedily, about a question that expects a yes or no.

    Whatever ended it, the answer is then scored as yes against no alone, at "Final Answer:".
    """
    tokens = engine.manifest.tokens
    question_ids = engine.prompt.question(question + REASONING_REQUEST)
    reply = Reply(tokens)
    generated: list[int] = []
    steps = stop_repetition(prefix.generate(question_ids, Sampling(), REASONING_TOKENS))
    while True:
        try:
            generated.append(next(steps).token_id)
        except StopIteration as stop:
            ending: FinishReason = stop.value
            break
        reply.add(generated[-1])
    if reply.is_thought and tokens.thought_end is not None:
        generated.append(tokens.thought_end)
        ending = FinishReason.LENGTH if ending is FinishReason.STOP else ending
    begin = len(generated) - len(reply.answer) + reply.answer_ahead
    return Reasoning((*question_ids, *_up_to_final_answer(engine, generated, begin)), ending)


def _up_to_final_answer(engine: Engine, generated: Sequence[int], begin: int) -> list[int]:
    """Ids up to the last "Final Answer:" from `begin` on, which is added where it is missing."""
    for end in range(len(generated), begin, -1):
        if engine.tokenizer.decode(generated[begin:end]).endswith(FINAL_ANSWER):
            return list(generated[:end])
    return [*generated, *engine.tokenizer.encode("\n\n" + FINAL_ANSWER)]
