"""Phantoms with a table of what was drawn into them."""

from collections.abc import Sequence
from pathlib import Path

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED

HEADER = ",".join(("study", "patient", "sex", "age", *FINDINGS))


def draw_labelled(
    folder: Path,
    drawn: Sequence[Sequence[str]],
    labelled: Sequence[Sequence[str]] | None = None,
    first: int = 0,
) -> Path:
    """Draw a phantom with each list of findings; two neighbours are of one patient.

    The table says what was drawn, unless `labelled` says other things.

    Studies are folders `case00`, `case01` and so on of `folder/scans`; the table is returned.
    """
    lines = [HEADER]
    for place, findings in enumerate(drawn):
        phantom = draw_phantom(EVALUATION_FIRST_SEED + first + place, findings=frozenset(findings))
        study = folder / "scans" / f"case{place:02}"
        study.mkdir(parents=True)
        write_dicom_series(phantom, study)
        stated = (labelled or drawn)[place]
        present = ",".join(str(int(code in stated)) for code in FINDINGS)
        lines.append(f"case{place:02},p{place // 2},{'MF'[place % 2]},{30 + 4 * place},{present}")
    table = folder / "labels.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table
