"""bfloat16 against the type of ml_dtypes."""

import ml_dtypes
import numpy as np

from edge_medgemma.runtime.bfloat16 import bfloat16_bits, float32_of, rounded_to_bfloat16


def numbers() -> np.ndarray:
    """Of every exponent and sign, and those halfway between two bfloat16."""
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, np.uint32)
    halfway = bits & np.uint32(0xFFFF0000) | np.uint32(0x8000)
    drawn = np.concatenate([bits, halfway]).view(np.float32)
    return drawn[np.isfinite(drawn) & (np.abs(drawn) < 3e38)]


def test_a_number_becomes_the_nearest() -> None:
    expected = numbers().astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(bfloat16_bits(numbers()), expected.view(np.uint16))
    np.testing.assert_array_equal(rounded_to_bfloat16(numbers()), expected.astype(np.float32))


def test_bits_are_read_as_they_were_written() -> None:
    bits = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    expected = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(float32_of(bits).view(np.uint32), expected.view(np.uint32))
