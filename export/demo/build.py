"""Export the trained checkpoint as the engine that comes with the package.

`python -m edge_medgemma.export.demo.build --checkpoint FOLDER --out runtime/engines/demo`, then
`python -m edge_medgemma.export.demo.domain --engine runtime/engines/demo`: without a domain the engine
says nothing of any scan. Then `python -m edge_medgemma.export.demo.thresholds`, for its percentages.
"""

import argparse
from pathlib import Path

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.quantisation.quant_scheme import PRECISIONS
from edge_medgemma.runtime.manifest import Manifest, Scope
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

RECORD_NAME = "phantom.json"
BLOCK_SIZE = 32
PROTOCOL = "head_ct_demo"
NOTICE = (
    "demonstration only: this engine was trained on synthetic phantoms, knows nothing of real "
    "patients, and must not be used for them"
)

SCOPE = Scope(
    is_demonstration=True,
    notice=NOTICE,
    protocol=PROTOCOL,
    modalities=(Modality.CT,),
    body_parts=(BodyPart.HEAD,),
    findings=FINDINGS,
)


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of train.py")
    parser.add_argument("--out", type=Path, required=True, help="engine directory, not there yet")
    parser.add_argument("--precision", choices=PRECISIONS, default="int4")
    options = parser.parse_args()
    manifest = build_engine(options.checkpoint, options.out, options.precision)
    total = sum(record.bytes for record in manifest.files.values())
    print(f"{options.out}: {total / 1e6:.2f} MB, SHA-256 {manifest.sha256}")


def build_engine(checkpoint: Path, out: Path, precision: str = "int4") -> Manifest:
    """Export `checkpoint` to the new engine directory `out` with its scope.

    Raises:
        CheckpointError: not a checkpoint.
        ResourceError: `out` exists, or the disk is full.
    """
    return export_engine(
        open_checkpoint(str(checkpoint)),
        out,
        precision=precision,
        block_size=BLOCK_SIZE,
        scope=SCOPE,
    )


if __name__ == "__main__":
    main()
