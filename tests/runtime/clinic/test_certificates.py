"""Certificates as OpenSSL judges them, and as both ends of a TLS connection use them."""

import datetime as dt
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.clinic import certificates
from edge_medgemma.runtime.clinic.certificates import (
    authority_fingerprint,
    ensure_server_certificate,
    issue_sender_certificate,
    read_validity,
    server_files,
)
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import ResourceError, SettingsError

NAMES = ("clinic-box", "clinic-box.local", "127.0.0.1")


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bytes:
    """What a client reads from a server over a real connection; errors of either end are raised."""
    failures: list[BaseException] = []

    def serve(listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
            with connection, server.wrap_socket(connection, server_side=True) as encrypted:
                encrypted.sendall(b"hello")
        except OSError as error:
            failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname()) as connection,
                client.wrap_socket(connection, server_hostname=name) as encrypted,
            ):
                return encrypted.recv(5)
        finally:
            thread.join(30)
            if failures:
                raise failures[0]


def test_both_ends_of_a_connection_believe_each_other_and_nobody_else(state, tmp_path) -> None:
    files = ensure_server_certificate(state, NAMES)
    sender = issue_sender_certificate(state, "CT1")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.authority)
    server.load_cert_chain(files.certificate, files.key)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=sender.authority)
    with pytest.raises(OSError, match=r"(?i)certificate|eof|reset"):
        handshake(server, client, "127.0.0.1")  # without a certificate of its own
    client.load_cert_chain(sender.certificate, sender.key)
    for name in NAMES:
        assert handshake(server, client, name) == b"hello"
    with pytest.raises(ssl.SSLError):
        handshake(server, client, "another-box")

    stranger = issue_sender_certificate(StateFolder(tmp_path / "stranger"), "CT1")
    client.load_cert_chain(stranger.certificate, stranger.key)
    with pytest.raises(OSError, match=r"(?i)unknown ca|certificate|reset"):
        handshake(server, client, "127.0.0.1")


def test_openssl_finds_nothing_wrong(state) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    server, sender = ensure_server_certificate(state, NAMES), issue_sender_certificate(state, "CT1")
    for path, purpose in ((server.certificate, "sslserver"), (sender.certificate, "sslclient")):
        verify = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile"]
        subprocess.run([*verify, server.authority, path], check=True, capture_output=True)


def test_keys_are_the_owners_alone_and_the_authority_is_older_than_any_clock(state) -> None:
    server, sender = ensure_server_certificate(state, NAMES), issue_sender_certificate(state, "CT1")
    for key in (server.key, sender.key, state.certificates / "authority.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert read_validity(server.authority).not_before == start
    assert read_validity(sender.certificate).not_before == start
    validity = read_validity(server.certificate)
    assert validity.not_after - validity.not_before <= dt.timedelta(days=825)
    assert set(validity.names) == set(NAMES)


def test_the_server_certificate_is_renewed_in_time_for_new_names_and_after_damage(
    state, monkeypatch
) -> None:
    files = ensure_server_certificate(state, NAMES)
    fingerprint = authority_fingerprint(state)

    def renewed(names: tuple[str, ...] = NAMES) -> bool:
        before = files.certificate.read_bytes()
        ensure_server_certificate(state, names)
        return files.certificate.read_bytes() != before

    assert not renewed()
    assert renewed((*NAMES, "192.168.1.5"))
    assert not renewed()  # an address that went does no harm
    files.key.write_text("cut sh")
    assert renewed()
    now = certificates.likely_now
    monkeypatch.setattr(certificates, "likely_now", lambda: now() + dt.timedelta(days=650))
    assert renewed()
    assert authority_fingerprint(state) == fingerprint


def test_what_cannot_be_made_is_said(state) -> None:
    issue_sender_certificate(state, "CT1")
    with pytest.raises(ResourceError, match="'CT1' has a certificate in"):
        issue_sender_certificate(state, "CT1")
    with pytest.raises(SettingsError, match="cannot name a certificate"):
        issue_sender_certificate(state, "../CT1")
    (state.certificates / "authority.key").write_text("cut sh")
    with pytest.raises(ResourceError, match=r"authority\.key' is damaged"):
        issue_sender_certificate(state, "CT2")
    (state.certificates / "authority.key").unlink()
    with pytest.raises(ResourceError, match="could not read"):
        ensure_server_certificate(state, NAMES)


@pytest.mark.command("clinic certificate")
def test_the_command_names_files_and_fingerprint(state) -> None:
    output = (
        CliRunner()
        .invoke(
            cli,
            ["clinic", "--state", str(state.path), "certificate", "MR-1"],
            catch_exceptions=False,
        )
        .output
    )
    assert str(state.certificates / "senders" / "MR-1" / "certificate.pem") in output
    assert authority_fingerprint(state) in output
    assert server_files(state).certificate.exists()
