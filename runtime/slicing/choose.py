"""Which series of a study is triaged when it holds several, and why, in one sentence."""

from collections.abc import Sequence

from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series

FULL_COVERAGE = 0.9
"""A series that covers this share of the longest one covers the study as well."""


def choose_series(
    series: Sequence[Series],
    modalities: Sequence[Modality],
    body_part: BodyPart | None = None,
) -> tuple[Series | None, str]:
    """Pick the series of one study to triage, with the reason said aloud.

    Among those of the given modalities (and, if given, of `body_part` or an unknown one): values
    that can be trusted, axial, original, full coverage, a soft-tissue kernel, most slices; then
    the lowest UID, so that the choice never depends on the order of files. None if none fits.
    """
    wanted = "/".join(modalities)
    fitting = [one for one in series if one.modality in modalities and _shows(one, body_part)]
    if not fitting:
        part = f" of the {body_part}" if body_part else ""
        return None, f"none of the {len(series)} series is {wanted}{part}"
    longest_mm = max(coverage_mm(one) for one in fitting)
    chosen = min(fitting, key=lambda one: _preference(one, longest_mm))
    if len(fitting) == 1:
        return chosen, f"the only {wanted} series was taken: {_description(chosen)}"
    others = _others(chosen, fitting, longest_mm)
    return chosen, f"{_description(chosen)} was taken of {len(fitting)} series{others}"


def coverage_mm(series: Series) -> float:
    """Length of the stack along its normal, the first and last slice taken as one spacing thick."""
    return float(series.positions_mm[-1] - series.positions_mm[0]) + series.spacing_mm[0]


def _shows(series: Series, body_part: BodyPart | None) -> bool:
    return body_part is None or series.body_part in (body_part, BodyPart.UNKNOWN)


def _preference(series: Series, longest_mm: float) -> tuple[object, ...]:
    """Sort key; False goes before True."""
    return (
        not _is_trusted(series),
        series.orientation not in ("axial", "projection"),
        not series.is_original,
        coverage_mm(series) < FULL_COVERAGE * longest_mm,
        series.is_sharp_kernel,
        -series.shape[0],
        series.series_uid,
        series.sources[0].sop_instance_uid,
    )


def _is_trusted(series: Series) -> bool:
    return all(problem.name != "not_hounsfield" for problem in series.problems)


def _description(series: Series) -> str:
    count = series.shape[0]
    slices = "1 slice" if count == 1 else f"{count} slices"
    origin = "original" if series.is_original else "derived"
    if series.orientation == "projection":
        return f"one {origin} {series.modality} image"
    return (
        f"the {series.orientation} {origin} {series.modality} series of {slices} "
        f"over {coverage_mm(series):.0f} mm"
    )


def _others(chosen: Series, fitting: list[Series], longest_mm: float) -> str:
    """Why each of the others was not taken: the first rule that ranks it lower, counted."""
    names = ("not in Hounsfield units", "not axial", "derived", "shorter", "of a sharp kernel")
    rank = _preference(chosen, longest_mm)
    counts: dict[str, int] = {}
    for one in fitting:
        if one is not chosen:
            pairs = zip(_preference(one, longest_mm), rank, strict=True)
            rule = next((i for i, (its, best) in enumerate(pairs) if its != best), len(names))
            name = names[rule] if rule < len(names) else "with no more slices"
            counts[name] = counts.get(name, 0) + 1
    return "; the others: " + ", ".join(f"{count} {name}" for name, count in counts.items())
