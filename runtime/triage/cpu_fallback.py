"""What to do when a device fails in the middle of a study."""

from collections.abc import Callable
from typing import TypeVar

from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.volume import Problem

DEVICE_FAILED = Problem(
    "device_failed",
    "The GPU failed while this study was read; the CPU read it again from the beginning.",
)

T = TypeVar("T")


def with_cpu_fallback(
    engine: Engine, attempt: Callable[[], T], on_fallback: Callable[[], None]
) -> T:
    """The result of `attempt`, which begins again on the CPU, once, if a device fails.

    Args:
        engine: leaves its device.
        attempt: runs stages of a study.
        on_fallback: called in between; drops what the device computed.

    Raises:
        ProviderError: there is no device to leave, or the engine has no form for the CPU.
    """
    try:
        return attempt()
    except ProviderError as error:
        if not engine.fall_back(str(error)):
            raise
    on_fallback()
    return attempt()
