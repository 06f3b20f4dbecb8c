"""The compiled kernels, once for each level: an instruction set. onnxruntime's operators come from it.

Operators are made for the level that is in use when a session is opened.
"""

def claimed_levels() -> list[str]:
    """Levels that the processor and its operating system claim to run, the fastest first.

    A claim can be false: `kernels.level` tries before it uses one.
    """

def compiled_levels() -> list[str]:
    """Levels that the library has kernels for, the fastest first: a compiler may be too old for some."""

def use_level(name: str | None, /) -> None:
    """Compute with the kernels of this level, or with none.

    Raises:
        ValueError: it was not compiled.
    """

def level_in_use() -> str | None:
    """Name of the level; None, as at first, where there is none."""

def supported() -> bool:
    """Whether this processor has AVX512_VNNI."""

def has_attention() -> bool:
    """Whether a level is in use: else attention of many rows is left to onnxruntime, too."""
