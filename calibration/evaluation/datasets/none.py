"""No labels: every study is triaged, as an archive is, and no figure can be given."""

import hashlib

from edge_medgemma.calibration.evaluation.datasets.collect import known_codes
from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout, LabelRequest
from edge_medgemma.calibration.evaluation.records import Labels


def read_labels(request: LabelRequest) -> Labels:
    """No rows, whatever the path."""
    codes = tuple(dict.fromkeys([*request.own_codes, *known_codes()]))
    return Labels("none", (), codes, hashlib.sha256(b"").hexdigest())


LAYOUT = DatasetLayout("none", read_labels)
