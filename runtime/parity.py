"""How well an engine agrees with the model it was made of: what is on record, and nothing more."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.manifest import Manifest

PARITY_NAME = "parity.json"
"""Beside the manifest. It is no file of the manifest: an engine is measured after it is made."""

UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Parity:
    """The worst of the prompts that `verify` compared."""

    manifest_sha256: str
    """Of the engine that was compared; the stamp says nothing of any other."""
    reference: str
    kl_nats: float
    """Largest mean KL(reference || engine) of a prompt."""
    top1_agreement: float
    """Smallest share of positions with the same most likely token."""
    image_cosine: float
    """Smallest cosine of an image token's features."""


def write_parity(directory: Path, parity: Parity) -> None:
    """Leave the stamp in an engine directory.

    Raises:
        ResourceError: the directory cannot be written.
    """
    text = json.dumps(asdict(parity), indent=1) + "\n"
    write_atomically(directory / PARITY_NAME, text.encode())


def parity_words(directory: Path, manifest: Manifest) -> str:
    """What is on record of this very engine, in a few words; UNVERIFIED where nothing is.

    A stamp of `verify` comes before the loss that a calibrated export measured.
    """
    try:
        parity = Parity(**json.loads((directory / PARITY_NAME).read_text(encoding="utf-8")))
        if parity.manifest_sha256 == manifest.sha256:
            return (
                f"KL {parity.kl_nats:.1e} nats, top-1 {parity.top1_agreement:.1%} against "
                f"{parity.reference}"
            )
    except (OSError, ValueError, TypeError):
        pass
    loss = (manifest.calibration or {}).get("loss")
    if isinstance(loss, dict) and isinstance(loss.get("kl_nats"), float):
        return f"KL {loss['kl_nats']:.1e} nats on held-out slices, at export"
    return UNVERIFIED
