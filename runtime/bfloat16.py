"""bfloat16, the upper half of a float32, which numpy has no type for: its bits are uint16 here."""

import numpy as np
from numpy.typing import NDArray


def bfloat16_bits(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16, of two the even one; `numbers` are finite."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    is_odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + (np.uint32(0x7FFF) + is_odd)) >> np.uint32(16)).astype(np.uint16)


def float32_of(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The numbers themselves."""
    numbers: NDArray[np.float32] = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return numbers


def rounded_to_bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest numbers that a bfloat16 can be."""
    return float32_of(bfloat16_bits(numbers))
