"""The compiled part of `kernels.attention`; rows are those of all heads, [rows, 3 * heads * size].

`attention_module.c`: contiguous float32 in and out. All raise ValueError where a buffer does not
have the length that the other arguments ask for.
"""

import numpy as np
from numpy.typing import NDArray

LARGEST_HEAD: int
"""Head sizes that its working memory holds; SigLIP's heads have 72."""

def supported() -> bool:
    """Whether this processor runs a level and has no matrix unit, which OpenVINO uses better."""

def packed_size(rows: int, head_size: int, /) -> int:
    """32-bit words that the packed keys of a head take, or its values."""

def pack(
    joined: NDArray[np.float32],
    keys: NDArray[np.uint32],
    values: NDArray[np.uint32],
    rows: int,
    heads: int,
    head: int,
    /,
) -> bool:
    """Write keys and values of one head as `attend` reads them; False: they are in int16."""

def attend(
    joined: NDArray[np.float32],
    keys: NDArray[np.uint32],
    values: NDArray[np.uint32],
    out: NDArray[np.float32],
    rows: int,
    heads: int,
    head: int,
    is_int8: bool,
    first: int,
    last: int,
    /,
) -> None:
    """Write rows `first` .. `last` of one head to `out`, [rows, heads * size]."""
