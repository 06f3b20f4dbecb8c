"""In which order the studies of a scan are looked at, and how closely, within a budget."""

import time
from collections.abc import Iterator, Sequence

from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.pass_cost import Pace
from edge_medgemma.runtime.triage.refinement import coarse_count, ladder
from edge_medgemma.runtime.triage.study_run import StudyRun

READING_SHARE = 0.5
"""Reading a slice takes at most so much of the time of encoding it (measured: 0.2 to 0.36 on CPUs).
Only the size of the first pass of a run rests on it; later ones are measured."""


class Schedule:
    """Passes to be made, one at a time, until the budget is used or nothing is left to gain."""

    def __init__(self, options: TriageOptions) -> None:
        """The budget runs from here on."""
        self._until_settled = options.until_settled
        self._budget_s = options.budget_s
        self._start_s = time.perf_counter()
        self._pace: Pace | None = None

    def passes(self, examinations: Sequence[StudyRun]) -> Iterator[tuple[StudyRun, int]]:
        """The next study and its number of slices; to be looked at before the next is asked for.

        Every study comes once, coarsely, in the order given. Then they are refined in rounds; in
        each, those come first whose urgency can still rise the most.
        """
        for done, examination in enumerate(examinations):
            yield examination, self._first_count(examination, len(examinations) - done)
            self._pace = examination.pace or self._pace
        waiting = list(examinations)
        while waiting:
            waiting = [one for one in waiting if self._can_gain(one)]
            waiting.sort(key=lambda one: -one.report.urgency.rank if one.report else 0)
            for examination in list(waiting):
                count = self._next_count(examination)
                if count is None:
                    waiting.remove(examination)
                    continue
                yield examination, count
                self._pace = examination.pace or self._pace

    def _can_gain(self, examination: StudyRun) -> bool:
        settled = self._until_settled and examination.is_settled
        return examination.report is not None and not examination.is_complete and not settled

    def _first_count(self, examination: StudyRun, studies_left: int) -> int:
        coarse = coarse_count(examination.slices)
        if self._budget_s is None:
            return coarse
        if self._pace is None:
            vision_s = examination.probe()
            self._pace = Pace(vision_s, READING_SHARE * vision_s, 0.0, 1)
        share_s = self._remaining_s() / studies_left
        counts = [n for n in ladder(examination.slices) if n <= coarse]
        fitting = [n for n in counts if self._estimate_s(examination, n) <= share_s]
        return max(fitting, default=counts[0])

    def _next_count(self, examination: StudyRun) -> int | None:
        """The next halving of the gaps, or all that fits at once; None where nothing fits."""
        target = examination.slices
        if self._until_settled:
            target = min(target, 2 * examination.num_slices_seen)
        counts = [
            n for n in ladder(examination.slices) if examination.num_slices_seen < n <= target
        ]
        if self._budget_s is None:
            return max(counts)
        remaining_s = self._remaining_s()
        fitting = [n for n in counts if self._estimate_s(examination, n) <= remaining_s]
        return max(fitting, default=None)

    def _estimate_s(self, examination: StudyRun, count: int) -> float:
        assert self._pace is not None
        control = examination.needs_control(count)
        new = examination.new_slices(count)
        pass_s = self._pace.estimate_s(new, count, with_control=control)
        return examination.redecode_s + pass_s

    def _remaining_s(self) -> float:
        assert self._budget_s is not None
        return self._budget_s - (time.perf_counter() - self._start_s)
