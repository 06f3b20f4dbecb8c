"""MedGemma on bedside devices: `export` makes an engine, `calibration` tunes it, `runtime` runs it.

The three are folders of the repository's root, and packages of this one once installed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    """`__version__`, read from the installed distribution when it is asked for; `unknown` without one."""
    if name != "__version__":
        raise AttributeError(f"module 'edge_medgemma' has no attribute '{name}'")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("edge-medgemma")
    except PackageNotFoundError:
        return "unknown"
