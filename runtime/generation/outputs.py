"""What generation yields, token by token, and why it ends."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Step:
    """One generated token."""

    token_id: int
    logprob: float
    """Natural logarithm of its probability among the tokens allowed here; 0 for a forced one."""
    elapsed_s: float
    """Since generation began."""


class FinishReason(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    """The model ended its turn, or a constraint left nothing to say."""
    LENGTH = "tokens_spent"
    REPETITION = "repetition"
    """Whoever listened stopped it: the same words came again and again."""
