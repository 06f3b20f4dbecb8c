"""Certificates of a box that no public authority knows: its own authority signs them.

The authority's certificate is copied to browsers and senders once. Both it and the senders' are
valid from 2020, for a device whose clock starts in the past; the server's is as short as browsers ask
for and is made anew at a start of the box.
"""

import contextlib
import datetime as dt
import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_medgemma.runtime.clinic.clock import likely_now
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import ResourceError, SettingsError
from edge_medgemma.runtime.files import new_file

VALID_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
"""Of the authority and the senders: before any time at which a device without a battery starts."""

AUTHORITY_YEARS = 30
SENDER_YEARS = 10
SERVER_DAYS = 800
"""Phones accept 825 at most."""

RENEW_DAYS = 200
"""A server's certificate that is valid for less is made anew at the next start."""

SENDER_NAME = re.compile("[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files of one holder."""

    certificate: Path
    key: Path
    authority: Path
    """Certificate of the authority that signed it; a peer is believed if the same one signed its."""


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate is valid, and for whom."""

    not_before: dt.datetime
    not_after: dt.datetime
    names: tuple[str, ...]
    """Host names and addresses."""


def server_files(state: StateFolder) -> CertificateFiles:
    """Where the certificate of node and page lies; `ensure_server_certificate` makes it."""
    folder = state.certificates
    return CertificateFiles(folder / "server.pem", folder / "server.key", folder / "authority.pem")


def ensure_server_certificate(state: StateFolder, names: Sequence[str]) -> CertificateFiles:
    """The server's certificate for these host names and addresses, made or renewed where need be.

    Raises:
        ResourceError: the folder cannot be read or written, or the authority's files are damaged.
    """
    files = server_files(state)
    with _lock(state):
        certificate, key = _authority(state)
        if not _still_good(files, certificate, names):
            now = likely_now()
            _issue(
                certificate,
                key,
                files,
                subject=names[0] if names else "edge-medgemma",
                valid=(now - dt.timedelta(days=1), now + dt.timedelta(days=SERVER_DAYS)),
                names=names,
            )
    return files


def issue_sender_certificate(state: StateFolder, name: str) -> CertificateFiles:
    """A new certificate and key for a scanner or archive, with a copy of the authority's certificate.

    Raises:
        SettingsError: `name` is no name for a folder.
        ResourceError: it has one already, or as `ensure_server_certificate`.
    """
    if not SENDER_NAME.fullmatch(name):
        raise SettingsError(
            f"'{name}' cannot name a certificate; use up to 32 letters, digits, '-' and '_'"
        )
    folder = state.certificates / "senders" / name
    files = CertificateFiles(
        folder / "certificate.pem", folder / "key.pem", folder / "authority.pem"
    )
    if files.certificate.exists():
        raise ResourceError(
            f"'{name}' has a certificate in '{folder}'; copy it from there, or delete the folder "
            "for a new one"
        )
    with _lock(state):
        certificate, key = _authority(state)
        end = likely_now() + dt.timedelta(days=365 * SENDER_YEARS)
        _write(files.authority, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        _issue(certificate, key, files, subject=name, valid=(VALID_FROM, end), names=())
    return files


def authority_fingerprint(state: StateFolder) -> str:
    """SHA-256 of the authority's certificate as browsers show it: pairs of hex digits and colons.

    Raises:
        ResourceError: there is no authority yet, or its file is damaged.
    """
    digest = read_certificate(server_files(state).authority).fingerprint(hashes.SHA256())
    return digest.hex(":").upper()


def read_validity(path: Path) -> Validity:
    """When the certificate of a PEM file is valid, and for which hosts.

    Raises:
        ResourceError: the file is missing or damaged.
    """
    certificate = read_certificate(path)
    return Validity(
        certificate.not_valid_before_utc, certificate.not_valid_after_utc, _names(certificate)
    )


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate of a PEM file.

    Raises:
        ResourceError: the file is missing or damaged.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ResourceError(f"could not read '{path}': {error.strerror}") from error
    except ValueError as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> ResourceError:
    return ResourceError(
        f"'{path}' is damaged; restore '{path.parent}' from a copy, or delete it: a new authority is "
        "made, which every browser and sender has to be given"
    )


def _authority(state: StateFolder) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The box's authority; made where there is none, and never where only half of it is there."""
    path, key_path = state.certificates / "authority.pem", state.certificates / "authority.key"
    if not path.exists():
        _new_authority(path, key_path)
    certificate = read_certificate(path)
    key = _read_key(key_path)
    if key.public_key() != certificate.public_key():
        raise _damaged(key_path)
    return certificate, key


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ResourceError(f"could not read '{path}': {error.strerror}") from error
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(path)
    return key


def _new_authority(path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"edge-medgemma authority {serial % 10**6:06d}")]
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), serial)
        .not_valid_before(VALID_FROM)
        .not_valid_after(VALID_FROM + dt.timedelta(days=365 * AUTHORITY_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(key_path, _key_bytes(key), 0o600)
    _write(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _issue(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    files: CertificateFiles,
    *,
    subject: str,
    valid: tuple[dt.datetime, dt.datetime],
    names: Sequence[str],
) -> None:
    """Write a certificate for both ends of a TLS connection, key first."""
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(valid[1], authority.not_valid_after_utc)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if names:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        x509.CertificateBuilder(
            authority.subject,
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])]),
            key.public_key(),
            x509.random_serial_number(),
        )
        .not_valid_before(valid[0])
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    if names:
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    _write(files.key, _key_bytes(key), 0o600)
    _write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode("ascii"))


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def _still_good(files: CertificateFiles, authority: x509.Certificate, names: Sequence[str]) -> bool:
    """Whether the server's files are whole, signed by the authority, long valid and for these names."""
    try:
        certificate = read_certificate(files.certificate)
        if _read_key(files.key).public_key() != certificate.public_key():
            return False
        certificate.verify_directly_issued_by(authority)
    except (ResourceError, InvalidSignature, ValueError, TypeError):
        return False
    wanted = {name.value for name in map(_general_name, names)}
    present = {general.value for general in map(_general_name, _names(certificate))}
    long_valid = likely_now() + dt.timedelta(days=RENEW_DAYS) < certificate.not_valid_after_utc
    return long_valid and wanted <= present and certificate.not_valid_before_utc <= likely_now()


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    with new_file(path, mode=mode) as file:
        file.write(data)


@contextlib.contextmanager
def _lock(state: StateFolder) -> Iterator[None]:
    """One process at a time makes certificates; the folder is made where it is missing."""
    import fcntl

    state.create()
    descriptor = os.open(state.certificates, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
