"""A study with all results of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_medgemma.calibration.evaluation.attributes import NOT_STATED, merged
from edge_medgemma.calibration.evaluation.cases import LabelledStudy
from edge_medgemma.calibration.evaluation.records import Outcome, Prediction
from edge_medgemma.calibration.evaluation.results import Answer, StudyResult


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A study and all results of it."""

    study: LabelledStudy
    results: tuple[StudyResult, ...]

    @classmethod
    def of(cls, study: LabelledStudy, results: Mapping[str, StudyResult]) -> "Evaluated":
        """The study with its results, by key of the case."""
        return cls(study, tuple(results[case.key] for case in study.cases))

    @property
    def answers(self) -> list[Answer]:
        """Of all its protocols."""
        return [answer for result in self.results for answer in result.answers]

    def answer(self, prediction: Prediction) -> Answer | None:
        """The answer that a prediction was made of; None where nothing was asked."""
        for result in self.results:
            if result.protocol is not None and result.protocol.name == prediction.protocol:
                for answer in result.answers:
                    if answer.code == prediction.finding:
                        return answer
        return None

    @property
    def is_read(self) -> bool:
        """Whether a slice was shown to the engine."""
        return any(result.slices for result in self.results)

    @property
    def is_assessed(self) -> bool:
        """Whether nothing stood in the way, with any protocol."""
        return all(result.is_assessable for result in self.results)

    @property
    def is_flagged(self) -> bool:
        """Whether any finding was flagged."""
        return any(answer.outcome is Outcome.FLAGGED for answer in self.answers)

    @property
    def seconds(self) -> float:
        """From opening the study to its reports."""
        return sum(result.seconds for result in self.results)

    @property
    def limitations(self) -> tuple[str, ...]:
        """What stood in the way, each reason once."""
        return tuple(dict.fromkeys(word for one in self.results for word in one.limitations))

    def attribute(self, name: str) -> str:
        """The subgroup that the study belongs to; labels are believed before the header."""
        scan = next((one.attributes for one in self.results if name in one.attributes), {})
        labels = self.study.row.attributes if self.study.row else {}
        return merged(scan, labels).get(name, NOT_STATED)
