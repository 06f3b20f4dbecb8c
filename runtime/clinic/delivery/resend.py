"""Handing a result to one destination once more, as the same objects."""

import shutil
from dataclasses import replace
from pathlib import Path

from edge_medgemma.runtime.clinic.delivery.deliverables import build_deliverables
from edge_medgemma.runtime.clinic.delivery.lock import outbox_lock
from edge_medgemma.runtime.clinic.delivery.manifest import (
    MANIFEST_FILE,
    Manifest,
    entry_folder,
    manifest_bytes,
    read_manifest,
    receivers,
)
from edge_medgemma.runtime.clinic.delivery.receipts import (
    Receipt,
    read_receipt,
    write_receipt,
)
from edge_medgemma.runtime.clinic.settings import ClinicSettings, HealthRecord, Peer
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import DeliveryError, SettingsError

SENT_AGAIN = "handed_over_again"
"""Event of the audit."""


def send_again(state: StateFolder, settings: ClinicSettings, name: str, study_key: str) -> int:
    """Put the latest result of a study into the outbox for a destination, whatever it has got of it.

    Returns:
        The number of the result; the node's process sends it.

    Raises:
        SettingsError: there is no such destination, or it is sent nothing.
        DeliveryError: the study has no result that may leave.
        ResourceError: the disk is full.
    """
    to = receivers(settings).get(name)
    if to is None:
        known = ", ".join(receivers(settings)) or "nobody"
        raise SettingsError(
            f"'{name}' is sent nothing by the settings, which send results to: {known}; see 'results' "
            "of [[peers]]"
        )
    number = _final_result(state, study_key)
    folder = entry_folder(state, study_key, number)
    if not _holds_all(folder, to):
        _make_anew(state, settings, study_key, number)
    with outbox_lock(state):
        if not folder.is_dir():
            raise DeliveryError(
                f"nothing may leave of study {study_key[:8]}: the demo engine looked at it, and "
                "site.demonstration does not allow that"
            )
        manifest = read_manifest(folder)
        if name not in manifest.destinations:
            names = tuple(sorted({*manifest.destinations, name}))
            _write_manifest(folder, replace(manifest, destinations=names))
        write_receipt(folder, name, Receipt())
    audit.append(state, SENT_AGAIN, name, study_key, str(number))
    return number


def _final_result(state: StateFolder, study_key: str) -> int:
    with Worklist.open(state) as worklist:
        row = worklist.study(study_key)
    if row is None or row.result_number is None or not row.is_final:
        raise DeliveryError(
            f"study {study_key[:8]} has no result yet that may leave; wait until it has been looked at"
        )
    return row.result_number


def _holds_all(folder: Path, to: Peer | HealthRecord) -> bool:
    """Whether what this destination is sent lies in the folder."""
    try:
        manifest = read_manifest(folder)
    except DeliveryError:
        return False
    if isinstance(to, Peer):
        return set(to.results) <= {one.kind for one in manifest.objects}
    return to.name in manifest.destinations


def _make_anew(state: StateFolder, settings: ClinicSettings, study_key: str, number: int) -> None:
    """Make all objects again; what others have got of them is kept, for they are the same."""
    folder = entry_folder(state, study_key, number)
    with outbox_lock(state):
        receipts = {name: read_receipt(folder, name) for name in receivers(settings)}
        shutil.rmtree(folder, ignore_errors=True)
    build_deliverables(state, settings, study_key, number)
    with outbox_lock(state):
        for name, receipt in receipts.items():
            if receipt is not None and folder.is_dir() and read_receipt(folder, name) is None:
                write_receipt(folder, name, receipt)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    from edge_medgemma.runtime.files import write_atomically

    write_atomically(folder / MANIFEST_FILE, manifest_bytes(manifest))
