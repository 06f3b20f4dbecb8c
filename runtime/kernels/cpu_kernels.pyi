"""The compiled kernels, once for each level: an instruction set. onnxruntime's operators come from it.

Operators are made for the level that is in use when a session is opened.
"""

from typing import TypeAlias

from numpy import generic
from numpy.typing import NDArray

Buffer: TypeAlias = NDArray[generic]

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

def peak_loops() -> list[tuple[str, float]]:
    """Loops of multiply instructions of the level in use: their type of numbers, and FLOP of a round.

    Raises:
        ValueError: no level is in use.
    """

def run_peak_loop(index: int, rounds: int, /) -> None:
    """Run one of `peak_loops` in this thread, and let others run meanwhile.

    Raises:
        ValueError: no level is in use, or no such loop.
    """

class VisionThreads:
    """Threads that compute the vision tower at one level; not a name of the module."""

def vision_threads(count: int, /) -> VisionThreads:
    """Start threads, the caller counted among them, that compute with the level in use.

    Raises:
        MemoryError: the system gives no more threads or memory.
        ValueError: no level is in use, or no such number.
    """

def vision_sizes(
    threads: VisionThreads, rows: int, inputs: int, outputs: int, are_pairs: bool = False, /
) -> tuple[int, int]:
    """Bytes of `rows` quantised rows of `inputs` numbers, and of packed weights.

    `are_pairs` where a layer is in float32: rows and weights are then packed in int16.
    """

def vision_pack(
    threads: VisionThreads,
    weights: Buffer,
    inputs: int,
    outputs: int,
    packed: Buffer,
    scales: Buffer | None = None,
    /,
) -> None:
    """Pack weights [inputs, outputs] for `vision_linear`.

    They are int8, or float32 where there are `scales` to write, [outputs].
    """

def vision_quantise(
    threads: VisionThreads,
    rows: Buffer,
    weight: Buffer | None,
    bias: Buffer | None,
    row_count: int,
    size: int,
    epsilon: float,
    inverse_scale: float,
    out: Buffer,
    row_scales: Buffer | None = None,
    /,
) -> None:
    """Float32 rows [row_count, size], layer-normed where there is a weight, to int8 for `vision_linear`.

    With `row_scales`, which are written, to int16 in the scale of each row.
    """

def vision_linear(
    threads: VisionThreads,
    rows: Buffer,
    weights: Buffer,
    scales: Buffer,
    bias: Buffer,
    row_count: int,
    inputs: int,
    outputs: int,
    after: int,
    out: Buffer,
    inverse_scale: float,
    row_scales: Buffer | None = None,
    /,
) -> None:
    """Products of quantised rows and packed weights, times `scales` plus `bias`, both [outputs].

    Args:
        after: 0 stores them in `out`, float32 [row_count, outputs], 1 adds them to it, 2 quantises GELU
            of them with `inverse_scale`, as rows of the next layer, or stores it where there are row scales
        row_scales: of rows in int16
    """

def vision_packed_words(rows: int, heads: int, head_size: int, /) -> int:
    """Numbers of 32 bits that keys and values take in `vision_attend`."""

def vision_attend(
    threads: VisionThreads,
    joined: Buffer,
    rows: int,
    heads: int,
    head_size: int,
    out: Buffer,
    packed: Buffer,
    may_be_bytes: bool = False,
    /,
) -> None:
    """Softmax attention of all rows to all rows.

    Args:
        joined: float32 [rows, 3, heads, head_size], queries, keys and values
        out: float32 [rows, heads, head_size]
        packed: scratch of `vision_packed_words`
        may_be_bytes: scores of a head are products of int8 where that is faster and moves no row of
            them by more than 0.05, root mean square
    """
