"""What the box keeps: the worklist, the audit, certificates."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge_medgemma.runtime.clinic.addresses import machine_addresses, uses_https
from edge_medgemma.runtime.clinic.certificates import read_validity, server_files
from edge_medgemma.runtime.clinic.checks.line import CheckLine, fail, ok, warn
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.errors import WorklistError

_SOON = timedelta(days=60)


def check_database(state: StateFolder) -> CheckLine:
    """Whether the worklist's file is whole; it is only read."""
    advice = (
        "restart the box: the worklist is made anew from the scans and results, nothing is lost"
    )
    if not state.database.exists():
        return warn("database", "there is no worklist yet", "it is made when the box starts")
    try:
        with closing(sqlite3.connect(f"{state.database.as_uri()}?mode=ro", uri=True)) as connection:
            (answer,) = connection.execute("PRAGMA quick_check").fetchone()
            (count,) = connection.execute("SELECT count(*) FROM studies").fetchone()
    except sqlite3.DatabaseError as error:
        return fail("database", f"the worklist's file is damaged ({error})", advice)
    if answer != "ok":
        return fail("database", "the worklist's file is damaged", advice)
    return ok("database", f"the worklist is whole and holds {count} studies")


def check_audit(state: StateFolder) -> CheckLine:
    """Whether every line of the audit is in its chain."""
    try:
        return ok("audit", f"{audit.verify(state)} lines, none altered")
    except WorklistError as error:
        return fail("audit", str(error), "find out who changed it; keep the file")


def check_certificates(
    state: StateFolder, settings: ClinicSettings, *, is_lan: bool, now: datetime | None = None
) -> Iterator[CheckLine]:
    """Whether those of the box and its senders are valid, now and for a while, and for its addresses."""
    files = server_files(state)
    if not files.authority.exists():
        if uses_https(settings, is_lan=is_lan) or settings.node.tls_port is not None:
            yield fail("certificate", "the box has no certificate", "restart it: it makes one")
        else:
            yield ok("certificate", "none is needed: only this machine is answered, or plainly")
        return
    yield _dates("certificate_authority", "the box's authority", files.authority, now)
    if files.certificate.exists():
        yield _dates("certificate", "the box's own certificate", files.certificate, now)
        missing = sorted(set(machine_addresses()) - set(read_validity(files.certificate).names))
        if missing:
            yield warn(
                "certificate_names", f"the box's certificate is not for {', '.join(missing)}",
                "restart the box: it makes a new one",
            )  # fmt: skip
    for path in sorted(state.certificates.glob("senders/*/certificate.pem")):
        sender = path.parent.name
        yield _dates(f"certificate_{sender}", f"the certificate of '{sender}'", path, now)


def _dates(name: str, whose: str, path: Path, now: datetime | None) -> CheckLine:
    validity = read_validity(path)
    now = now or datetime.now(UTC)
    until = f"{whose} is valid until {validity.not_after:%Y-%m-%d}"
    if now < validity.not_before:
        return fail(
            name, f"{whose} is not valid before {validity.not_before:%Y-%m-%d}",
            "set the clock of this machine",
        )  # fmt: skip
    advice = "restart the box: it makes a new one"
    if name not in ("certificate", "certificate_authority"):
        advice = f"delete '{path.parent}' and make a new one: edge-medgemma clinic certificate"
    if now > validity.not_after:
        return fail(name, f"{whose} ended on {validity.not_after:%Y-%m-%d}", advice)
    return warn(name, until, advice) if now > validity.not_after - _SOON else ok(name, until)
