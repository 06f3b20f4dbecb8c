"""Labels matched with the studies of a scan folder, by UID, folder or file name."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout
from edge_medgemma.calibration.evaluation.records import LabelRow, Labels
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.triage.worklist import StudyTask

MAX_PATHS_WHOLE = 16
"""Studies of more files are not looked for by a path that ends in a file: there are too many."""


@dataclass(frozen=True, slots=True)
class StudyNames:
    """What a table may call one study."""

    names: frozenset[str]
    images: int
    """Slices or pictures of the study."""
    example: str
    """The name that a message shows."""


@dataclass(frozen=True, slots=True)
class Match:
    """Which label belongs to which study; what is left over on either side is listed."""

    pairs: Mapping[int, LabelRow]
    """Place of a study -> its labels."""
    rows_without_study: tuple[str, ...]
    """Keys, in the order of the table."""
    studies_without_row: tuple[int, ...]
    rows_of_several_studies: tuple[str, ...]
    """Keys that fit more than one study; none of these is taken."""
    studies_of_several_rows: tuple[int, ...]
    """Studies that more than one row fits, none of which is taken."""
    notes: tuple[str, ...] = ()


def study_names(task: StudyTask, root: Path) -> StudyNames:
    """What a table may call the study of a task.

    Names are its UIDs, its files with and without their extensions, its folders below `root`, and
    paths of these from any folder on.
    """
    series = [*((task.series,) if task.series else ()), *task.other_series]
    sources = {(s.path, s.frame): s.sop_instance_uid for one in series for s in one.sources}
    uids = {task.study_uid, *(one.series_uid for one in series), *sources.values()} - {""}
    return names_of_files({path for path, _ in sources}, root, uids, images=len(sources))


def names_of_files(
    paths: Iterable[Path], root: Path, uids: Iterable[str] = (), *, images: int
) -> StudyNames:
    """What a table may call a study that lies in these files below `root`."""
    resolved = root.resolve()
    base = resolved if resolved.is_dir() else resolved.parent
    files = sorted(
        PurePosixPath(path.relative_to(base).as_posix())
        for path in paths
        if path.is_relative_to(base)  # unpacked archives lie elsewhere, under numbers
    )
    names = set(uids)
    for folder in {file.parent for file in files}:
        for length in range(1, len(folder.parts) + 1):
            names.update(_endings(PurePosixPath(*folder.parts[:length])))
    for file in files:
        for one in _without_extensions(file):
            names.update(_endings(one) if len(files) <= MAX_PATHS_WHOLE else (one.name,))
    example = next((str(file) for file in files), next(iter(sorted(names)), ""))
    return StudyNames(frozenset(names), images, example)


def match_studies(studies: Iterable[StudyNames], labels: Labels, layout: DatasetLayout) -> Match:
    """Match each study with the row that names it.

    Nothing is guessed: a row that fits two studies, or a study that two rows fit, is listed. Where a
    row speaks of one slice, a study has what any slice has, and lacks what all its slices lack.

    Raises:
        ScanError: no row fits any study; both sides are shown by an example.
    """
    rows = {layout.name_of(row.key): row for row in labels.rows}
    found: list[list[str]] = []
    images: list[int] = []
    examples: list[str] = []
    for study in studies:
        known = {layout.name_of(name) for name in study.names}
        found.append(sorted(name for name in known if name in rows))
        images.append(study.images)
        examples.append(study.example)
    uses = Counter(key for keys in found for key in keys)
    if labels.rows and not uses:
        raise ScanError(_nothing_matched(labels, examples))
    match = _slices_matched if layout.has_slice_rows else _rows_matched
    pairs, several, notes = match(found, rows, images, lambda key: uses[key] == 1)
    left = set(rows) - set(uses)
    return Match(
        pairs=pairs,
        rows_without_study=tuple(row.key for key, row in rows.items() if key in left),
        studies_without_row=tuple(i for i, keys in enumerate(found) if not keys),
        rows_of_several_studies=tuple(row.key for key, row in rows.items() if uses[key] > 1),
        studies_of_several_rows=several,
        notes=notes,
    )


_Matched = tuple[dict[int, LabelRow], tuple[int, ...], tuple[str, ...]]


def _rows_matched(
    found: Sequence[list[str]],
    rows: Mapping[str, LabelRow],
    images: Sequence[int],
    is_single: Callable[[str], bool],
) -> _Matched:
    pairs = {
        i: rows[keys[0]] for i, keys in enumerate(found) if len(keys) == 1 and is_single(keys[0])
    }
    return pairs, tuple(i for i, keys in enumerate(found) if len(keys) > 1), ()


def _slices_matched(
    found: Sequence[list[str]],
    rows: Mapping[str, LabelRow],
    images: Sequence[int],
    is_single: Callable[[str], bool],
) -> _Matched:
    pairs: dict[int, LabelRow] = {}
    partly = 0
    for i, keys in enumerate(found):
        members = [rows[key] for key in keys if is_single(key)]
        if not members:
            continue
        is_whole = len(members) >= images[i]
        partly += not is_whole
        pairs[i] = _combined(members, is_whole=is_whole)
    notes: tuple[str, ...] = ()
    if partly:
        sentence = f"{partly} studies have slices without a label: what none of the others shows "
        notes = (f"{sentence}is taken as not read there",)
    return pairs, (), notes


def _combined(members: list[LabelRow], *, is_whole: bool) -> LabelRow:
    """One row for a study of its slices' rows; its key is the first slice's."""
    codes = dict.fromkeys(code for row in members for code in row.findings)
    findings: dict[str, bool | None] = {}
    for code in codes:
        values = [row.findings.get(code) for row in members]
        is_absent = is_whole and all(value is False for value in values)
        findings[code] = True if True in values else False if is_absent else None
    first = min(members, key=lambda row: row.key)
    return LabelRow(first.key, findings, first.patient, first.attributes)


def _endings(path: PurePosixPath) -> list[str]:
    """A relative path from each of its folders on: `a/b/c`, `b/c`, `c`."""
    return ["/".join(path.parts[start:]) for start in range(len(path.parts))]


def _without_extensions(path: PurePosixPath) -> list[PurePosixPath]:
    """A path as it is, without its last extension, and without `.nii.gz`."""
    shorter = [path]
    if path.suffix:
        shorter.append(path.with_suffix(""))
    if path.name.lower().endswith(".nii.gz"):
        shorter.append(path.with_name(path.name[: -len(".nii.gz")]))
    return shorter


def _nothing_matched(labels: Labels, examples: Sequence[str]) -> str:
    first = labels.rows[0].key if labels.rows else ""
    return (
        f"none of {len(labels.rows)} labels names one of {len(examples)} studies: a label says "
        f"'{first}', a scan is called '{examples[0] if examples else ''}'; is SCANS one folder too "
        "deep or too shallow, or --dataset another layout?"
    )
