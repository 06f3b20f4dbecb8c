"""How well an engine agrees with the model it was made of: what is on record, and nothing more."""

from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.documents import Finite, Sha256, dump_sealed, parse_sealed
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.manifest import Manifest

PARITY_NAME = "parity.json"
"""Beside the manifest. It is no file of the manifest: an engine is measured after it is made."""

UNVERIFIED = "unverified"

HELD_OUT_SLICES, HELD_OUT_TEXT = "held-out slices", "held-out prose and a drawn head"
"""What an export measured its loss on, with a calibration and without."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The worst of the prompts that `verify` compared."""

    manifest_sha256: Sha256
    """Hash of the engine that was compared; the record says nothing of any other."""
    reference: str
    failed_stage: str | None
    """First stage past its limit, of `ids`, `pixels`, `image features`, `logits` and `greedy tokens`;
    None where the engine passed"""
    kl_nats: Finite | None
    """Largest mean KL(reference || engine) of a prompt; as all figures None where not compared"""
    top1_agreement: Finite | None
    """Smallest share of positions with the same most likely token."""
    image_cosine: Finite | None
    """Smallest cosine of an image token's features."""


def write_parity(directory: Path, parity: Parity) -> None:
    """Leave the stamp in an engine directory.

    Raises:
        ResourceError: the directory cannot be written.
    """
    write_atomically(directory / PARITY_NAME, dump_sealed(parity).encode())


def parity_words(directory: Path, manifest: Manifest) -> str:
    """Parity on record of this very engine, in a few words; UNVERIFIED where there is none.

    A stamp of `verify` comes before the loss that an export measured.
    """
    try:
        parity = parse_sealed((directory / PARITY_NAME).read_bytes(), Parity)
        if parity.manifest_sha256 == manifest.sha256:
            return _words(parity)
    except (OSError, ValueError, RecursionError):
        pass
    loss = (manifest.calibration or {}).get("loss")
    if isinstance(loss, dict) and isinstance(loss.get("kl_nats"), float):
        what = (manifest.calibration or {}).get("measured_on", HELD_OUT_SLICES)
        return f"KL {loss['kl_nats']:.1e} nats on {what}, at export"
    return UNVERIFIED


def _words(parity: Parity) -> str:
    verdict = f"FAILED verify at {parity.failed_stage}" if parity.failed_stage else ""
    if parity.kl_nats is None or parity.top1_agreement is None:
        return f"{verdict or 'nothing compared'} against {parity.reference}"
    figures = f"KL {parity.kl_nats:.1e} nats, top-1 {parity.top1_agreement:.1%}"
    return f"{verdict}{': ' if verdict else ''}{figures} against {parity.reference}"
