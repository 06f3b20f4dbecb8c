"""All checks of a box, in the order in which a person would go through them."""

from collections.abc import Callable, Iterable, Iterator

from edge_medgemma.runtime.clinic.checks.engine import (
    check_engine,
    check_languages,
    check_printing,
)
from edge_medgemma.runtime.clinic.checks.keeping import (
    check_audit,
    check_certificates,
    check_database,
)
from edge_medgemma.runtime.clinic.checks.line import CheckLine, fail
from edge_medgemma.runtime.clinic.checks.machine import (
    check_clock,
    check_disk,
    check_ports,
    check_processes,
)
from edge_medgemma.runtime.clinic.checks.network import check_own_node, check_peers
from edge_medgemma.runtime.clinic.instance import is_running
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import EdgeMedgemmaError


def check_clinic(
    state: StateFolder, settings: ClinicSettings, *, is_lan: bool
) -> tuple[CheckLine, ...]:
    """Look at everything; one check that cannot be made is a line too, and the others go on.

    Takes seconds a peer that is away. Nothing is changed.
    """
    checks: list[tuple[str, Callable[[], CheckLine | Iterable[CheckLine]]]] = [
        ("processes", lambda: check_processes(state)),
        ("ports", lambda: check_ports(state, settings)),
        ("echo", lambda: check_own_node(state, settings) if is_running(state) else ()),
        ("peers", lambda: check_peers(state, settings, is_lan=is_lan)),
        ("disk", lambda: check_disk(state, settings)),
        ("clock", lambda: check_clock(state)),
        ("certificates", lambda: check_certificates(state, settings, is_lan=is_lan)),
        ("engine", lambda: check_engine(settings)),
        ("languages", lambda: check_languages(settings)),
        ("pdf", lambda: check_printing(settings)),
        ("database", lambda: check_database(state)),
        ("audit", lambda: check_audit(state)),
    ]
    return tuple(line for name, check in checks for line in _lines(name, check))


def _lines(name: str, check: Callable[[], CheckLine | Iterable[CheckLine]]) -> Iterator[CheckLine]:
    try:
        found = check()
        yield from [found] if isinstance(found, CheckLine) else found
    except (EdgeMedgemmaError, OSError) as error:
        yield fail(name, f"could not be checked: {error}", "see the log: journalctl")
