"""Where the page and the DICOM node of this machine are reached."""

import socket
from dataclasses import dataclass

from edge_medgemma.runtime.clinic.settings import ClinicSettings

LOOPBACK = "127.0.0.1"


def uses_https(settings: ClinicSettings, *, is_lan: bool) -> bool:
    """Whether the page is encrypted: wherever another machine may read it, unless settings say no."""
    return is_lan and not settings.page.plain_http


def server_names(settings: ClinicSettings) -> tuple[str, ...]:
    """Host names and addresses that the box's certificate is for."""
    host = socket.gethostname().split(".")[0].lower()
    found = [*settings.page.host_names, host, f"{host}.local", "localhost"]
    found += [*machine_addresses(), LOOPBACK]
    return tuple(dict.fromkeys(name for name in found if name))


@dataclass(frozen=True, slots=True)
class ClinicAddress:
    """What is typed into a browser and into a scanner."""

    is_lan: bool
    """Whether other machines are answered."""
    page_urls: tuple[str, ...]
    ae_title: str
    hosts: tuple[str, ...]
    """Addresses of the node, without its port."""
    port: int
    tls_port: int | None


def clinic_address(settings: ClinicSettings, *, is_lan: bool) -> ClinicAddress:
    """The addresses under which the settings make this machine answer."""
    scheme = "https" if uses_https(settings, is_lan=is_lan) else "http"
    hosts = (machine_addresses() if is_lan else ()) or (LOOPBACK,)
    return ClinicAddress(
        is_lan=is_lan,
        page_urls=tuple(f"{scheme}://{host}:{settings.page.port}/" for host in hosts),
        ae_title=settings.node.ae_title,
        hosts=hosts,
        port=settings.node.port,
        tls_port=settings.node.tls_port,
    )


def machine_addresses() -> tuple[str, ...]:
    """IPv4 addresses of this machine on networks that are up, without the loopback."""
    import psutil

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = [
        address.address
        for name, addresses in sorted(psutil.net_if_addrs().items())
        if name in up
        for address in addresses
        if address.family == socket.AF_INET
    ]
    return tuple(address for address in found if not address.startswith("127."))
