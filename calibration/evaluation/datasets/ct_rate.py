"""CT-RATE: chest CTs as NIfTI, one row a reconstruction in `*_predicted_labels.csv`.

VolumeName (`valid_1_a_1.nii.gz`: patient valid_1, scan a, reconstruction 1), then 18 columns of 0 and 1
that a text classifier made of the reports. Hamamci et al., arXiv 2403.17834.
"""

import re
from collections.abc import Mapping

from edge_medgemma.calibration.evaluation.datasets.collect import RowCollector, counted
from edge_medgemma.calibration.evaluation.datasets.columns import find_table, flag, unmapped_note
from edge_medgemma.calibration.evaluation.datasets.csv_table import open_table
from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout, LabelRequest
from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.slicing.volume import Modality

VOLUME = "VolumeName"

FINDINGS: Mapping[str, str] = {
    "Pericardial effusion": "pericardial_effusion",
    "Pleural effusion": "pleural_effusion",
    "Consolidation": "consolidation",
    "Lung nodule": "lung_nodule_or_mass",
    "Cardiomegaly": "cardiomegaly",
}
"""Column -> finding. The table has no word for a mass: one without a nodule counts as absent."""

TABLES = (
    "valid_predicted_labels.csv",
    "train_predicted_labels.csv",
    "multi_abnormality_labels/valid_predicted_labels.csv",
    "dataset/multi_abnormality_labels/valid_predicted_labels.csv",
)

_PATIENT = re.compile(r"([a-z]+_\d+)_")


def patient_of(volume: str) -> str:
    """`valid_1` of `valid_1_a_1.nii.gz`; empty where the name is of another form."""
    found = _PATIENT.match(volume)
    return found[1] if found else ""


def read_labels(request: LabelRequest) -> Labels:
    """One row a volume, with the patient that the name tells.

    Raises:
        LabelError: another table.
    """
    table = open_table(find_table(request.path, TABLES))
    volume = table.index(VOLUME)
    places = {name: table.index(name) for name in FINDINGS}
    collector = RowCollector()
    for line, fields in table.rows():
        findings = {
            FINDINGS[name]: flag(table, line, name, fields[place]) for name, place in places.items()
        }
        collector.add(fields[volume], findings, patient_of(fields[volume]))
    rows = collector.rows()
    patients = len({row.patient or row.key for row in rows})
    notes = [
        (
            f"{counted(len(rows), 'volume')} of {counted(patients, 'patient')}: several reconstructions "
            "of one scan are not independent"
        ),
        "the labels were made of reports by a text classifier",
        *unmapped_note(table.columns, {VOLUME, *FINDINGS}),
        *collector.notes(),
    ]
    return Labels("ct-rate", rows, tuple(FINDINGS.values()), table.sha256, tuple(notes))


LAYOUT = DatasetLayout("ct-rate", read_labels, protocol="chest_ct", modality=Modality.CT)
