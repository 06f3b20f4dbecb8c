"""Likeness of reports to their references: BLEU, ROUGE-L, and RadGraph F1 with the user's own weights."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_medgemma.calibration.evaluation.document import Share
from edge_medgemma.calibration.evaluation.language.figures import NO_SPREAD, mean_score
from edge_medgemma.calibration.statistics.metrics import BOOTSTRAP_SAMPLES
from edge_medgemma.runtime.documents import Size
from edge_medgemma.runtime.errors import DatasetError, DependencyError

RADGRAPH_MODELS = ("modern-radgraph-xl", "radgraph-xl", "radgraph")
"""Folders of weights that the package `radgraph` 0.1.18 knows."""


@dataclass(frozen=True, slots=True)
class TextMetric:
    """A score of all reports against their references, with a 95 % interval over reports resampled."""

    name: str
    version: str
    """Of the library and its settings, or of the model."""
    reports: Size
    value: Share | None
    """null without reports."""
    low: Share | None
    high: Share | None


def bleu(reports: Sequence[str], references: Sequence[str]) -> TextMetric:
    """Corpus BLEU of sacrebleu with its standard settings, divided by 100.

    Raises:
        DependencyError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    scorer = BLEU()
    score: Any = scorer.corpus_score(
        list(reports), [list(references)], n_bootstrap=BOOTSTRAP_SAMPLES if len(reports) > 1 else 1
    )
    signature = str(scorer.get_signature())
    if len(reports) < 2 or score._ci < NO_SPREAD:
        value = float(score.score) / 100
        return TextMetric("BLEU", signature, len(reports), value, None, None)
    low, high = score._mean - score._ci, score._mean + score._ci
    limits = (min(max(float(one) / 100, 0.0), 1.0) for one in (score.score, low, high))
    return TextMetric("BLEU", signature, len(reports), *limits)


def rouge_l(reports: Sequence[str], references: Sequence[str]) -> tuple[TextMetric, list[float]]:
    """Mean ROUGE-L F of rouge-score without stemming, and that of each report.

    Raises:
        DependencyError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(references, reports, strict=True)
    scores = [float(scorer.score(*pair)["rougeL"].fmeasure) for pair in pairs]
    mean = mean_score(scores, range(len(scores)))
    version = f"rouge-score {_version('rouge-score')}, no stemming"
    return TextMetric("ROUGE-L", version, len(scores), mean.value, mean.low, mean.high), scores


def radgraph(reports: Sequence[str], references: Sequence[str], model: Path) -> TextMetric:
    """Mean RadGraph F1 (entities and relations, `partial`) by local weights; nothing is downloaded.

    Raises:
        DependencyError: radgraph is not installed.
        DatasetError: the folder holds none of the weights that radgraph knows, or it fails with them.
    """
    kind = next((name for name in RADGRAPH_MODELS if (model / name / "config.json").exists()), None)
    if kind is None:
        raise DatasetError(
            f"'{model}' holds no weights of RadGraph; expected one of the folders "
            f"{', '.join(RADGRAPH_MODELS)} with config.json in it"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from radgraph import F1RadGraph
    except ModuleNotFoundError:
        raise DependencyError(
            "radgraph is not installed; it needs an environment of its own with an older transformers: "
            "pip install radgraph==0.1.18 'transformers<4.45'"
        ) from None
    try:
        scorer = F1RadGraph(reward_level="partial", model_type=kind, model_cache_dir=str(model))
        _, scores, *_ = scorer(hyps=list(reports), refs=list(references))
    except Exception as error:  # noqa: BLE001 a library of others, offline: whatever it raises
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DatasetError(f"radgraph fails with the weights in '{model}' ({words})") from None
    mean = mean_score([float(score) for score in scores], range(len(scores)))
    version = f"radgraph {_version('radgraph')}, {kind}, partial"
    return TextMetric("RadGraph F1", version, len(scores), mean.value, mean.low, mean.high)


def _missing(error: ModuleNotFoundError) -> DependencyError:
    return DependencyError(
        f"'{error.name}' is not installed; from a checkout, run: pip install '.[language]', or leave "
        "BLEU and ROUGE-L out with --metrics findings"
    )


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
