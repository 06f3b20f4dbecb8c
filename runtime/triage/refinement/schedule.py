"""The order in which the studies of a scan get their passes, and how many slices, in a budget."""

import time
from collections.abc import Iterator, Sequence

from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.refinement.coarse_to_fine import coarse_count, ladder
from edge_medgemma.runtime.triage.refinement.pass_cost import PassCost
from edge_medgemma.runtime.triage.refinement.study_run import StudyRun


class Schedule:
    """Passes to be made, one at a time, until the budget is used or nothing is left to gain."""

    def __init__(self, options: TriageOptions) -> None:
        """Start the clock of the budget."""
        self._until_settled = options.until_settled
        self._budget_s = options.budget_s
        self._start_s = time.perf_counter()
        self._cost: PassCost | None = None

    def passes(self, runs: Sequence[StudyRun]) -> Iterator[tuple[StudyRun, int]]:
        """The next study and its number of slices; make the pass before asking for the next.

        Every study comes once, coarsely, in the order given. Then they are refined in rounds; in
        each, those come first whose urgency can still rise the most.
        """
        for done, run in enumerate(runs):
            yield run, self._first_count(run, len(runs) - done)
            self._cost = run.cost or self._cost
        waiting = list(runs)
        while waiting:
            waiting = [run for run in waiting if self._can_gain(run)]
            waiting.sort(key=lambda run: -run.report.urgency.rank if run.report else 0)
            for run in list(waiting):
                count = self._next_count(run)
                if count is None:
                    waiting.remove(run)
                    continue
                yield run, count
                self._cost = run.cost or self._cost

    def _can_gain(self, run: StudyRun) -> bool:
        settled = self._until_settled and run.is_settled
        return run.report is not None and not run.is_complete and not settled

    def _first_count(self, run: StudyRun, studies_left: int) -> int:
        coarse = coarse_count(run.num_slices)
        if self._budget_s is None:
            return coarse
        if self._cost is None:
            self._cost = PassCost.guess(run.measure_vision_s())
        share_s = self._remaining_s() / studies_left
        counts = [n for n in ladder(run.num_slices) if n <= coarse]
        fitting = [n for n in counts if self._estimate_s(run, n) <= share_s]
        return max(fitting, default=counts[0])

    def _next_count(self, run: StudyRun) -> int | None:
        """The next halving of the gaps, or all that fits at once; None where nothing fits."""
        target = run.num_slices
        if self._until_settled:
            target = min(target, 2 * run.num_slices_seen)
        counts = [n for n in ladder(run.num_slices) if run.num_slices_seen < n <= target]
        if self._budget_s is None:
            return max(counts)
        remaining_s = self._remaining_s()
        fitting = [n for n in counts if self._estimate_s(run, n) <= remaining_s]
        return max(fitting, default=None)

    def _estimate_s(self, run: StudyRun, count: int) -> float:
        assert self._cost is not None
        with_baseline = run.needs_baseline(count)
        pass_s = self._cost.estimate_s(
            run.num_new_slices(count), count, with_baseline=with_baseline
        )
        return run.redecode_s + pass_s

    def _remaining_s(self) -> float:
        assert self._budget_s is not None
        return self._budget_s - (time.perf_counter() - self._start_s)
