"""Phrases of one report in one language, as markup: figures keep their own direction."""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from markupsafe import Markup, escape

from edge_medgemma.runtime.reporting import words
from edge_medgemma.runtime.reporting.labels import minus, sentence
from edge_medgemma.runtime.reporting.options import StudyContext
from edge_medgemma.runtime.reporting.translation import ENGLISH, Translation
from edge_medgemma.runtime.triage.report import FindingResult, FindingStatus, KeyImage, StudyReport
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS, WARNINGS, Urgency

FEWEST_FITTED = 20
"""Patients with, and without, a finding: a percentage that was fitted on fewer is not printed."""

_TOLD = {**BLOCKING_PROBLEMS, **WARNINGS}

_NUMBERED_STUDY = re.compile(r"Study (\d+)")


_TEMPLATES = {
    re.compile(re.sub(r"%\\\((\w+)\\\)s", r"(?P<\1>[\\d ,or]+)", re.escape(template))): template
    for template in words.REASONS_WITH_FIGURES
}
"""What such a sentence looks like once the figures are in it."""


def figures(text: object) -> Markup:
    """Numbers, units and codes, which run left to right in every language."""
    return Markup('<bdi dir="ltr">{}</bdi>').format(text)


@dataclass(frozen=True, slots=True)
class Wording:
    """The phrases."""

    translation: Translation
    time_zone: tzinfo | None = None

    def phrase(self, text: str) -> Markup:
        """A message in this language; where there is none, English that is marked as such."""
        if self.translation.knows(text):
            return escape(self.translation.text(text))
        for pattern, template in _TEMPLATES.items():
            found = pattern.fullmatch(text)
            if found and self.translation.knows(template):
                return self._filled(
                    template,
                    **{k: figures(v.replace(" or ", " / ")) for k, v in found.groupdict().items()},
                )
        return Markup('<bdi lang="en" dir="ltr">{}</bdi>').format(text)

    def said(self, text: str) -> Markup:
        """A message as a sentence."""
        return self._sentence(self.phrase(text))

    def study_name(self, name: str) -> Markup:
        """`Study 3`."""
        numbered = _NUMBERED_STUDY.fullmatch(name)
        if numbered is None:
            return Markup("<bdi>{}</bdi>").format(name)
        return self._filled("Study %(number)s", number=figures(numbered[1]))

    def urgency(self, urgency: Urgency, flagged: Collection[object]) -> Markup:
        """The urgency in a word or two; `no flag raised` only where none was."""
        is_silent = urgency is Urgency.ROUTINE and not flagged
        return self.phrase(words.NO_FLAG_WORDS if is_silent else words.URGENCY_WORDS[urgency])

    def headline(self, study: StudyReport) -> Markup:
        """What a reader is told first."""
        return self.phrase(headline(study))

    def action(self, study: StudyReport) -> Markup:
        """What to do next."""
        return self.phrase(words.ACTIONS[study.urgency])

    def status(self, finding: FindingResult) -> Markup:
        """`possible`, `no flag` or `not assessed`."""
        return self.phrase(words.STATUS_WORDS[finding.status])

    def possible(self, study: StudyReport) -> Markup:
        """Flagged findings, each with its slices."""
        return _joined((self._with_slices(one, study) for one in study.flagged), " · ")

    def limitations(self, study: StudyReport) -> Markup:
        """What stood in the way, one sentence."""
        return self._sentence(_joined(map(self.phrase, study.limitations), self._semicolon))

    def doubts(self, context: StudyContext, study: StudyReport) -> Markup:
        """Why the study may not be what it seems, and what an earlier look flagged, each said once."""
        told = {name for name, text in _TOLD.items() if text in study.limitations}
        named = [name for name in context.doubts if name in words.DOUBTS and name not in told]
        said = [self.phrase(words.DOUBTS[name]) for name in named]
        if set(named) & set(words.INCOMPLETE_DOUBTS) and "may_be_incomplete" not in told:
            said.insert(0, self.phrase(words.INCOMPLETE))
        if context.earlier_flags:
            titles = _joined(map(self.phrase, context.earlier_flags), self._semicolon)
            said.append(self._sentence(self._filled(words.EARLIER_FLAG, findings=titles)))
        return _joined(said, " ")

    def noticed(self, study: StudyReport) -> Markup:
        """Problems that are not among the limitations, in plain words, each once."""
        said = {
            words.PROBLEMS.get(one.name, one.detail)
            for one in study.problems
            if one.name not in BLOCKING_PROBLEMS and one.name not in WARNINGS
        }
        return self._sentence(_joined(map(self.phrase, sorted(said)), self._semicolon))

    def reasons(self, study: StudyReport) -> Markup:
        """Why findings were not assessed, and what speaks against flags; each sentence once."""
        said = dict.fromkeys((one.status, one.reason) for one in study.findings if one.reason)
        return _joined((self._reason(*one) for one in said), " ")

    def slices(self, finding: FindingResult) -> Markup:
        """`3–5, 9`: key slices, 1-based."""
        return figures(ranges([key.slice_index for key in finding.key_slices]))

    def probability(self, finding: FindingResult) -> Markup:
        """A percentage and the number of patients that it was fitted on, where there is one."""
        text = probability_words(finding)
        return figures(text) if text else Markup("")

    def caption(self, picture: KeyImage, study: StudyReport) -> Markup:
        """Which slice of how many it is, and where it lies."""
        number, total = figures(picture.slice_index + 1), figures(_slices_of(study))
        if study.series is not None and study.series.orientation == "projection":
            where = self._filled("Image %(number)s of %(total)s", number=number, total=total)
            view = figures(picture.view) if picture.view else self.phrase("view not stated")
            return Markup("<strong>{}</strong>{}{}").format(where, self.comma, view)
        where = self._filled("Slice %(number)s of %(total)s", number=number, total=total)
        place = self.phrase("position unknown")
        if math.isfinite(picture.position_mm):
            place = figures(minus(f"{picture.position_mm:.1f} mm"))
        return Markup("<strong>{}</strong>{}{}").format(where, self.comma, place)

    def window(self, picture: KeyImage) -> Markup:
        """The grey scale of a key image."""
        is_words = picture.window in words.WINDOWS
        return self.phrase(picture.window) if is_words else figures(picture.window)

    def seen(self, study: StudyReport) -> Markup:
        """How many slices were looked at."""
        if study.series is None or not study.slices:
            return self.phrase("nothing")
        number, total = figures(len(study.slices)), figures(_slices_of(study))
        return self._filled("%(number)s of %(total)s slices", number=number, total=total)

    def scan_time(self, study: StudyReport) -> Markup:
        """When the scan was made, by the scanner's clock."""
        if study.series is None or not study.series.scanned_at:
            return self.phrase("Scan date not stated")
        when = study.series.scanned_at.replace("T", " ")
        when = re.sub(r"([+-]\d{2}:\d{2})$", r" UTC\1", when) if " " in when else when
        return self._filled("Scan of %(date)s", date=figures(when.replace(" UTC+00:00", " UTC")))

    def clock(self, created_at: str) -> Markup:
        """The time of the report where it is read, and the zone."""
        when = datetime.fromisoformat(created_at).astimezone(self.time_zone)
        return figures(f"{when:%Y-%m-%d %H:%M} UTC{_offset(when)}")

    @property
    def comma(self) -> str:
        """Between two words of one list."""
        return "، " if self.translation.tag == "ar" else ", "

    @property
    def _semicolon(self) -> str:
        return "؛ " if self.translation.tag == "ar" else "; "

    def _with_slices(self, finding: FindingResult, study: StudyReport) -> Markup:
        title = self.phrase(finding.title)
        if not finding.key_slices:
            return title
        is_image = study.series is not None and study.series.orientation == "projection"
        count = len(finding.key_slices)
        where = self.translation.form("slice %(slices)s", "slices %(slices)s", count)
        if is_image:
            where = self.translation.form("image %(slices)s", "images %(slices)s", count)
        return Markup("{} ({})").format(title, escape(where) % {"slices": self.slices(finding)})

    def _reason(self, status: FindingStatus, reason: str) -> Markup:
        said = self.phrase(reason)
        if status is FindingStatus.NOT_ASSESSED:
            return self._sentence(self._filled("Not assessed: %(reason)s", reason=said))
        return self._sentence(said)

    def _filled(self, message: str, **values: Markup) -> Markup:
        return escape(self.translation.text(message)) % values

    def _sentence(self, markup: Markup) -> Markup:
        """Capital letter and full stop, the language's own."""
        if not markup:
            return markup
        if self.translation.tag == ENGLISH:
            return Markup(sentence(markup))
        stop = "।" if self.translation.tag == "hi" else "."
        is_ended = re.sub("<[^>]*>", "", markup).endswith((".", "।", "!", "?"))
        return markup[:1].upper() + markup[1:] + ("" if is_ended else stop)


def headline(study: StudyReport) -> str:
    """What a reader is told first, in English."""
    is_flagged_routine = study.urgency is Urgency.ROUTINE and study.flagged
    return words.ROUTINE_FLAGGED_HEADLINE if is_flagged_routine else words.HEADLINES[study.urgency]


def english_line(study: StudyReport) -> str:
    """Headline and flagged findings in English, for a page whose translation nobody has reviewed."""
    titles = "; ".join(one.title for one in study.flagged)
    return f"{headline(study)}." + (f" Possible: {titles}." if titles else "")


def probability_words(finding: FindingResult) -> str:
    """A percentage and the patients that it was fitted on; nothing where too few were, or none is given."""
    if finding.probability is None or finding.fitted_on is None:
        return ""
    if min(finding.fitted_on) < FEWEST_FITTED:
        return ""
    return f"{100 * finding.probability:.0f} %, n = {sum(finding.fitted_on)}"


def ranges(indices: Iterable[int]) -> str:
    """0-based indices as 1-based numbers, neighbours joined: `3–5, 9`."""
    runs: list[list[int]] = []
    for number in sorted({index + 1 for index in indices}):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{low}" if low == high else f"{low}–{high}" for low, high in runs)


def _joined(parts: Iterable[Markup], separator: str) -> Markup:
    return Markup(separator).join(parts)


def _slices_of(study: StudyReport) -> int:
    shapes: Sequence[int] = study.series.shape if study.series else (0,)
    return shapes[0]


def _offset(when: datetime) -> str:
    offset = when.utcoffset() or timedelta()
    minutes = round(offset.total_seconds() / 60)
    if minutes == 0:
        return ""
    return f"{'+' if minutes > 0 else '−'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
