"""The shapes a plan is built for; a plan and its runtime must agree on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_medgemma.runtime.backends.tensorrt.library import Profile, Shape
from edge_medgemma.runtime.manifest import Manifest

USUAL_CHUNK_ROWS = 264
"""One slice: 256 image tokens and its label."""

FUSED_ROWS = 24_320
"""Most rows of keys that TensorRT-RTX 1.7 takes in one kernel for a single token under a mask on SM 86
and 89: their scores in float32 and 4 kB fill the shared memory of a block."""


@dataclass(frozen=True, slots=True)
class VisionShapes:
    """Slices per run, one optimisation profile each."""

    batches: tuple[int, ...] = (1, 4, 8)

    def profile_for(self, batch: int) -> int:
        """The first profile that takes so many slices."""
        return next(i for i, largest in enumerate(self.batches) if batch <= largest)

    def profiles(self, manifest: Manifest) -> tuple[Profile, ...]:
        """Optimisation profiles for the builder, in the order of `batches`."""
        size = manifest.vision.image_size
        found = []
        least = 1
        for largest in self.batches:
            low, high = (least, 3, size, size), (largest, 3, size, size)
            found.append(Profile({"pixel_values": (low, high, high)}))
            least = largest + 1
        return tuple(found)


def may_have_decode_profile(manifest: Manifest) -> bool:
    """Not with 16-bit weights: a plan of TensorRT-RTX 1.7 holds them once for each profile.

    Two layers of the 4B width: 386 MB with one profile, 771 with two; in int4 112 and 115.
    """
    return manifest.precision.decoder in ("int8", "int4")


@dataclass(frozen=True, slots=True)
class DecoderShapes:
    """Capacities of the caches and greatest chunk, and the optimisation profiles."""

    global_rows: int
    local_rows: int
    prefill_rows: int = 512
    logit_rows: int = 32
    """Questions that one pass answers."""
    has_decode_profile: bool = True
    """One profile for one token and one for a chunk, or a single one for both"""

    def profile_for(self, tokens: int) -> int:
        """The profile that takes a chunk of so many tokens."""
        return 1 if self.has_decode_profile and tokens > 1 else 0

    def profiles(self, manifest: Manifest) -> tuple[Profile, ...]:
        """Decode, then prefill."""
        usual = min(USUAL_CHUNK_ROWS, self.prefill_rows)
        if not self.has_decode_profile:
            both = (1, usual, self.prefill_rows)
            return (self._profile(manifest, both, (1, 1, self.logit_rows)),)
        return (
            self._profile(manifest, (1, 1, 1), (1, 1, 1)),
            self._profile(manifest, (2, usual, self.prefill_rows), (1, 1, self.logit_rows)),
        )

    def input_bytes(self, manifest: Manifest) -> dict[str, int]:
        """Device bytes of every input but the caches, at its greatest."""
        rows = self.prefill_rows
        return {
            "embeddings": rows * manifest.text.hidden_size * 4,
            "position_ids": rows * 8,
            "mask_global": rows * self.global_rows,
            "mask_local": rows * self.local_rows,
            "write_global": 8,
            "write_local": 8,
            "logit_rows": self.logit_rows * 8,
        }

    def _profile(
        self, manifest: Manifest, tokens: tuple[int, int, int], rows: tuple[int, int, int]
    ) -> Profile:
        hidden = manifest.text.hidden_size
        shapes: Mapping[str, tuple[Shape, Shape, Shape]] = {
            "embeddings": _each(tokens, lambda n: (1, n, hidden)),
            "position_ids": _each(tokens, lambda n: (1, n)),
            "mask_global": _each(tokens, lambda n: (1, 1, n, self.global_rows)),
            "mask_local": _each(tokens, lambda n: (1, 1, n, self.local_rows)),
            "logit_rows": _each(rows, lambda n: (n,)),
        }
        return Profile(shapes)


def _each(
    counts: tuple[int, int, int], shape: Callable[[int], Shape]
) -> tuple[Shape, Shape, Shape]:
    least, usual, greatest = map(shape, counts)
    return least, usual, greatest
