"""Paired samples of ours and of a peer, and the one table they make."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table. Samples are costs: seconds per unit, or bytes."""

    key: str
    title: str
    unit: str
    """Of what is shown: `tok/s` is the inverse of the cost, everything else the cost itself."""


MEASURES = (
    Measure("load_cold", "load to first token, files not in memory", "s"),
    Measure("load_warm", "load to first token, files in memory", "s"),
    Measure("vision", "vision tower, per slice", "s"),
    Measure("prefill", "prefill, 512 tokens of text", "tok/s"),
    Measure("prefill_slices", "prefill, instruction and slices", "tok/s"),
    Measure("decode", "decode, nothing read", "tok/s"),
    Measure("prefill_2k", "prefill, up to 2k tokens of text", "tok/s"),
    Measure("prefill_8k", "prefill, up to 8k tokens of text", "tok/s"),
    Measure("prefill_22k", "prefill, up to 22k tokens of text", "tok/s"),
    Measure("decode_2k", "decode behind 2k tokens", "tok/s"),
    Measure("decode_8k", "decode behind 8k tokens", "tok/s"),
    Measure("decode_22k", "decode behind 22k tokens", "tok/s"),
    Measure("job", "whole job: start, slices, 8 findings, 64 tokens", "s"),
    Measure("question", "another yes/no question, same process", "s"),
    Measure("question_new", "another yes/no question, new process", "s"),
    Measure("peak", "peak resident memory of the whole job", "GB"),
)


@dataclass(slots=True)
class Pair:
    """Everything measured of one peer beside ours, alternately."""

    peer: str
    about: str = ""
    about_ours: str = ""
    level: str = "native"
    """Of the processor that both were shown."""
    format: str = ""
    """The peer's, with its loss on real weights."""
    format_ours: str = ""
    done: list[str] = field(default_factory=list)
    """Stages measured."""
    ours: dict[str, list[float]] = field(default_factory=dict)
    """By key of the measure, in the order measured."""
    theirs: dict[str, list[float]] = field(default_factory=dict)
    cannot: dict[str, str] = field(default_factory=dict)
    """By key: why the peer has no value."""
    notes: dict[str, str] = field(default_factory=dict)
    """By key: how the peer's value came about, where that is not plain measurement."""
    others_cores: dict[str, float] = field(default_factory=dict)
    """By key: cores that other programs kept busy during the worst of the timings."""
    answers: list[float] = field(default_factory=list)
    """Log-odds of the findings."""
    answers_ours: list[float] = field(default_factory=list)
    report: list[int] = field(default_factory=list)
    """Token ids."""
    report_ours: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spread:
    """Smallest, middle and largest of some values."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(min(values), median(values), max(values))

    def text(self, digits: int = 3) -> str:
        """`middle (least-most)`; the bracket only where there is a spread."""
        if self.least == self.most:
            return f"{self.middle:.{digits}g}"
        return f"{self.middle:.{digits}g} ({self.least:.{digits}g}-{self.most:.{digits}g})"


def ratios(pair: Pair, key: str) -> list[float]:
    """Peer's cost divided by ours, sample by sample: above 1 ours is the cheaper."""
    return [b / a for a, b in zip(pair.ours[key], pair.theirs[key], strict=False)]


def shown(measure: Measure, costs: Sequence[float]) -> list[float]:
    """Costs in the unit of the measure."""
    if measure.unit == "tok/s":
        return [1 / cost for cost in costs]
    return [cost / 1e9 for cost in costs] if measure.unit == "GB" else list(costs)


def markdown(pairs: Sequence[Pair]) -> str:
    """The table: one line for each measure and peer, then what each name stands for."""
    lines = [
        "| measure | level | peer | ours is | theirs | ours | theirs / ours, min-median-max | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for measure in MEASURES:
        lines += [line for pair in pairs if (line := _line(measure, pair))]
    notes = [f"- {pair.peer} at {pair.level}: {_about(pair)}" for pair in pairs]
    ours = sorted({f"{pair.level}: {pair.about_ours}" for pair in pairs if pair.about_ours})
    return "\n".join([*lines, "", *(f"- ours at {about}" for about in ours), *notes, ""])


def _line(measure: Measure, pair: Pair) -> str | None:
    key = measure.key
    start = f"| {measure.title}, {measure.unit} | {pair.level} | {pair.format or pair.peer} |"
    start += f" {pair.format_ours} |"
    if key in pair.cannot:
        return f"{start} cannot | | | |"
    if not pair.theirs.get(key) or not pair.ours.get(key):
        return None
    theirs, ours = (
        Spread.of(shown(measure, costs)).text() for costs in (pair.theirs[key], pair.ours[key])
    )
    found = ratios(pair, key)
    ratio = Spread.of(found)
    mark = "*" if key in pair.notes else ""
    return (
        f"{start} {theirs}{mark} | {ours} | {ratio.least:.2f}-{ratio.middle:.2f}-{ratio.most:.2f} "
        f"| {len(found)} |"
    )


def _about(pair: Pair) -> str:
    parts = [pair.about or "not run"]
    reasons: dict[str, list[str]] = {}
    for key, reason in pair.cannot.items():
        reasons.setdefault(reason, []).append(key)
    parts += [f"cannot {', '.join(keys)}: {reason}" for reason, keys in reasons.items()]
    parts += [f"* {note}" for note in pair.notes.values()]
    if pair.answers and pair.answers_ours:
        parts.append(agreement(pair))
    if pair.others_cores:
        key = max(pair.others_cores, key=pair.others_cores.__getitem__)
        worst = pair.others_cores[key]
        parts.append(f"other programs used {worst:.2f} cores at worst, in {key}")
    return "; ".join(parts)


def agreement(pair: Pair) -> str:
    """How far the two runtimes say the same: the proof that both did the same job."""
    largest = max(abs(a - b) for a, b in zip(pair.answers_ours, pair.answers, strict=True))
    equal = 0
    for ours, theirs in zip(pair.report_ours, pair.report, strict=True):
        if ours != theirs:
            break
        equal += 1
    return (
        f"log-odds of the findings differ from ours by {largest:.2g} at most, the first {equal} of "
        f"{len(pair.report)} tokens are the same"
    )


def load_pairs(path: Path) -> dict[str, Pair]:
    """Pairs by peer from an earlier run; none where there was none."""
    if not path.exists():
        return {}
    return {name: Pair(**fields) for name, fields in json.loads(path.read_text()).items()}


def save_pairs(path: Path, pairs: Mapping[str, Pair]) -> None:
    """Write all samples as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: asdict(pair) for name, pair in pairs.items()}, indent=1))
