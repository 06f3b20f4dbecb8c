"""Which series of a study is triaged when it holds several, and why, in one sentence."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series

FULL_COVERAGE = 0.9
"""A series that covers this share of the longest one covers the study as well."""


def choose_series(
    series: Sequence[Series],
    modalities: Sequence[Modality],
    contrast_agent: bool | None = None,
    images: int = 1,
) -> tuple[Series | None, str]:
    """Pick the series of one study to triage, with the reason said aloud.

    Among those of the given modalities: values that can be trusted, made for reading, with or
    without the contrast agent that is asked for, axial, of a head no neck, original, full coverage, a soft-tissue
    kernel, most slices; then the lowest UID, so that the choice never depends on the order of files.
    Of radiographs, up to `images` of one examination are joined to one series, frontal ones first.
    None if none fits.
    """
    wanted = "/".join(modalities)
    fitting = [one for one in series if one.modality in modalities]
    if not fitting:
        return None, f"none of the {len(series)} series is {wanted}"
    longest_mm = max(coverage_mm(one) for one in fitting)

    def rank(one: Series) -> tuple[object, ...]:
        return _preference(one, longest_mm, contrast_agent, is_neck=_is_below_head(one, fitting))

    chosen = min(fitting, key=rank)
    if chosen.views and images > 1:
        return _joined(chosen, sorted(fitting, key=rank), images)
    if len(fitting) == 1:
        return chosen, f"the only {wanted} series was taken: {_description(chosen)}"
    others = _others(chosen, fitting, rank)
    return chosen, f"{_description(chosen)} was taken of {len(fitting)} series{others}"


def _joined(first: Series, ranked: Sequence[Series], images: int) -> tuple[Series, str]:
    """Radiographs as one series of several images, each with its view, frontal ones first."""
    alike = [one for one in ranked if _is_alike(one, first)][:images]
    alike.sort(key=lambda one: not one.views[0].is_frontal)
    views = ", ".join(one.views[0].value or "of a view not stated" for one in alike)
    left_out = len(ranked) - len(alike)
    others = f"; {left_out} left out" if left_out else ""
    plural = "s were" if len(alike) > 1 else " was"
    reason = f"{len(alike)} radiograph{plural} taken: {views}{others}"
    if len(alike) == 1:
        return first, reason
    rows, columns = (max(one.shape[axis] for one in alike) for axis in (1, 2))
    return (
        replace(
            alike[0],
            shape=(len(alike), rows, columns),
            positions_mm=np.zeros(len(alike)),
            sources=tuple(one.sources[0] for one in alike),
            problems=tuple(dict.fromkeys(p for one in alike for p in one.problems)),
            views=tuple(one.views[0] for one in alike),
            turns=tuple(one.turns[0] for one in alike),
        ),
        reason,
    )


def _is_alike(one: Series, first: Series) -> bool:
    """Whether a radiograph is read together with the first: as trustworthy, of the same part."""
    same_part = one.body_part in (first.body_part, BodyPart.UNKNOWN)
    return bool(one.views) and same_part and one.is_for_processing == first.is_for_processing


def series_keys(series: Sequence[Series]) -> list[str]:
    """A name for each series of a listing: its UID, with `#2`, `#3`... for more of the same UID.

    A series UID may hold several stacks; the order of `ScanListing.series` depends on content
    alone, so a key stays with its stack whatever the files are called.
    """
    seen: Counter[str] = Counter()
    keys = []
    for one in series:
        seen[one.series_uid] += 1
        count = seen[one.series_uid]
        keys.append(one.series_uid if count == 1 else f"{one.series_uid}#{count}")
    return keys


def series_of_key(series: Sequence[Series], key: str) -> list[Series]:
    """The series that `key` names: one of `series_keys`, or every stack of a series UID."""
    pairs = zip(series_keys(series), series, strict=True)
    named = [one for own_key, one in pairs if own_key == key]
    same_uid = [one for one in series if one.series_uid == key]
    return same_uid if len(same_uid) > 1 else named


def coverage_mm(series: Series) -> float:
    """Length of the stack along its normal, the first and last slice taken as one spacing thick."""
    return float(series.positions_mm[-1] - series.positions_mm[0]) + series.spacing_mm[0]


def _preference(
    series: Series, longest_mm: float, contrast_agent: bool | None, *, is_neck: bool
) -> tuple[object, ...]:
    """Sort key; False goes before True."""
    return (
        not _is_trusted(series),
        series.is_for_processing,
        series.orientation not in ("axial", "projection"),
        contrast_agent is not None and series.has_contrast_agent != contrast_agent,
        bool(series.views) and not series.views[0].is_frontal,
        is_neck,
        not series.is_original and not series.views,
        coverage_mm(series) < FULL_COVERAGE * longest_mm,
        series.is_sharp_kernel,
        -series.shape[0],
        series.series_uid,
        series.sources[0].sop_instance_uid,
    )


def _is_below_head(one: Series, others: Sequence[Series]) -> bool:
    """Whether, of the stacks of one series of a head, this one lies under another: it is the neck."""
    if one.orientation != "axial" or BodyPart.HEAD not in one.body_parts:
        return False
    middle_mm = float(one.positions_mm.mean())
    return any(
        other.series_uid == one.series_uid
        and other.orientation == "axial"
        and float(other.positions_mm.min()) > middle_mm
        and float(other.positions_mm.mean()) > float(one.positions_mm.max())
        for other in others
    )


def _is_trusted(series: Series) -> bool:
    return all(problem.name != "not_hounsfield" for problem in series.problems)


def _description(series: Series) -> str:
    count = series.shape[0]
    slices = "1 slice" if count == 1 else f"{count} slices"
    origin = "original" if series.is_original else "derived"
    origin += " contrast-enhanced" if series.has_contrast_agent else ""
    if series.orientation == "projection":
        return f"one {origin} {series.modality} image"
    return (
        f"the {series.orientation} {origin} {series.modality} series of {slices} "
        f"over {coverage_mm(series):.0f} mm"
    )


_RULES = (
    "not in Hounsfield units", "not made for reading", "not axial", "not as to contrast agent",
    "not frontal", "below the head", "derived", "shorter", "of a sharp kernel",
)  # fmt: skip
"""What the first places of `_preference` hold against a series."""


def _others(
    chosen: Series, fitting: list[Series], rank: Callable[[Series], tuple[object, ...]]
) -> str:
    """Why each of the others was not taken: the first rule that ranks it lower, counted."""
    best = rank(chosen)
    counts: Counter[str] = Counter()
    for one in fitting:
        if one is not chosen:
            rules = [
                i for i, (its, own) in enumerate(zip(rank(one), best, strict=True)) if its != own
            ]
            is_named = bool(rules) and rules[0] < len(_RULES)
            counts[_RULES[rules[0]] if is_named else "with no more slices"] += 1
    return "; the others: " + ", ".join(f"{count} {name}" for name, count in counts.items())
