"""The errors a user can meet. Each message says what was found, what was expected and what to do."""


class EdgeMedgemmaError(Exception):
    """Base of every error that the command line prints as one line; its exit status is 1."""


class ScanError(EdgeMedgemmaError, ValueError):
    """A scan that cannot be read: missing, empty, not an image, damaged."""


class EngineError(EdgeMedgemmaError, ValueError):
    """An engine directory that is missing, altered, of a later version or not for this device."""


class ParityError(EdgeMedgemmaError, ValueError):
    """An engine that differs from its checkpoint by more than its precision may."""


class CheckpointError(EdgeMedgemmaError, ValueError):
    """A checkpoint that cannot be exported: another architecture, missing weights, gated, offline."""


class ProtocolError(EdgeMedgemmaError, ValueError):
    """A triage protocol that does not exist or does not parse, or a question that may not be asked."""


class DatasetError(EdgeMedgemmaError, ValueError):
    """Questions, pictures, reports or prompts that are missing, damaged or of another layout."""


class ThresholdError(EdgeMedgemmaError, ValueError):
    """Fitted thresholds that are missing or altered, or too few labelled scans to fit them on."""


class AnswerError(EdgeMedgemmaError, RuntimeError):
    """A model's answer that never became whole; nothing of it is passed on."""


class DependencyError(EdgeMedgemmaError, ImportError):
    """An optional part is not installed; the message names the extra that brings it."""


class LabelError(EdgeMedgemmaError, ValueError):
    """A table of labels that is missing, damaged, of another layout or says nothing that is asked."""


class EvaluationError(EdgeMedgemmaError, ValueError):
    """Results of an evaluation that are damaged or of another run, or a figure below what is required."""


class ResourceError(EdgeMedgemmaError, OSError):
    """Too little disk, memory or permission for the job; nothing half-written is left behind."""


class ProviderError(EdgeMedgemmaError, RuntimeError):
    """A library or device that is unknown, does not work here or fails its self-test."""


class SettingsError(EdgeMedgemmaError, ValueError):
    """A file of settings that is missing, no TOML, or has a field that is unknown or out of range."""


class WorklistError(EdgeMedgemmaError, RuntimeError):
    """A study that the worklist does not hold, a step that its state does not allow, an altered audit."""


class DeliveryError(EdgeMedgemmaError, ValueError):
    """What was made of a result for others is missing, altered, or says what it must never say."""


class PeerError(EdgeMedgemmaError, OSError):
    """An archive, scanner or health-record system that is away, refuses, or answers with a failure."""


class QuestionError(EdgeMedgemmaError, RuntimeError):
    """A question that cannot be put to the engine now: too many wait, or it is known no more."""


class AccessError(EdgeMedgemmaError, ValueError):
    """A user or a program of the clinic's page that may not be added, is unknown, or is refused."""


class BaselineError(EdgeMedgemmaError, ValueError):
    """A file that a benchmark is compared with: missing, damaged or of another version."""


class DeviceMemoryError(ProviderError, ResourceError):
    """The memory of a GPU is full, maybe in the middle of a study."""
