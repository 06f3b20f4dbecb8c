"""Choices of the user for a run of `triage` or `ask`."""

from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.slicing.volume import Modality
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
    """Most slices shown to the model; None takes the protocol's, or fewer that plans hold."""
    budget_s: float | None = None
    """Seconds for the whole scan. Every study gets a coarse pass, whatever that takes; what is left
    goes into further passes. None sets no limit."""
    until_settled: bool = False
    """Show more and more slices only until the findings have settled."""
    modality: Modality | None = None
    """Of NIfTI files, which do not tell it; None goes by their values."""
    effort: Effort = Effort.FAST
    thresholds: Path | None = None
    """File of fitted thresholds; None is that of the engine directory, where there is one."""
    baseline_folder: Path | None = None
    """Folder of cached blank baselines; None is the user's cache folder."""
    scan_cache: ScanCache | None = None
    """Cache of image features and prefixes; None keeps nothing that is derived from the scan."""
    explained: frozenset[str] = frozenset()
    """Codes of findings that get their key slices even where they are not flagged."""

    @property
    def is_anytime(self) -> bool:
        """Whether a coarse pass comes first."""
        return self.until_settled or self.budget_s is not None


DEFAULT_OPTIONS = TriageOptions()
