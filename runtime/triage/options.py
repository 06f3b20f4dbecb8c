"""What the user may choose of a triage run."""

from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.store.scan_cache import ScanCache
from edge_medgemma.runtime.triage.protocol import Protocol
from edge_medgemma.runtime.triage.report import Effort


@dataclass(frozen=True, slots=True)
class TriageOptions:
    """The default suits a device without anyone watching it."""

    protocol: Protocol | None = None
    """None takes the built-in protocols that fit each study."""
    series_uid: str | None = None
    slices: int | None = None
    """Most slices shown to the model; None takes the protocol's number."""
    budget_s: float | None = None
    """Seconds for the whole scan. Every study is looked at coarsely, whatever that takes; what is
    left goes into looking closer. None sets no limit."""
    until_settled: bool = False
    """Look at more and more slices only until the findings have settled."""
    effort: Effort = Effort.FAST
    control_folder: Path | None = None
    """Where control log-odds are kept; None is the user's cache folder."""
    scan_cache: ScanCache | None = None
    """Of slices and prefixes; None keeps nothing that is derived from the scan."""

    @property
    def is_anytime(self) -> bool:
        """Whether a coarse pass comes first."""
        return self.until_settled or self.budget_s is not None


DEFAULT_OPTIONS = TriageOptions()
