"""`edge-medgemma clinic send`: a result to one destination once more."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.archive_peer import archive

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.clinic.delivery.outbox import Outbox
from edge_medgemma.runtime.clinic.delivery.receipts import Receipt, read_receipt, write_receipt
from edge_medgemma.runtime.clinic.settings import Peer, ResultKind
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.errors import EdgeMedgemmaError


def settings_file(folder: Path, *peers: Peer) -> Path:
    path = folder / "clinic.toml"
    path.write_text(
        "".join(
            f'[[peers]]\nname = "{peer.name}"\nae_title = "{peer.ae_title}"\nhost = "{peer.host}"\n'
            f"port = {peer.port}\nresults = {[str(kind) for kind in peer.results]}\n"
            for peer in peers
        )
    )
    return path


def send(sent: Any, name: str, settings: Path, key: str = "") -> Result:
    words = ["clinic", "send", name, "--study", key or sent.key[:8]]
    return CliRunner().invoke(
        cli, [*words, "--state", str(sent.state.path), "--settings", str(settings)]
    )


@pytest.mark.command("clinic send")
def test_a_delivered_result_is_sent_again_as_the_same_objects(
    sent: Any, clock: Any, tmp_path: Path
) -> None:
    with archive(has_commitment=False) as peer:
        outbox = Outbox(sent.state, sent.to(peer.peer()), clock, patience_s=30, answer_wait_s=0)
        outbox.run_once()
        first = list(peer.uids)
        outbox.run_once()
        assert peer.uids == first
        done = send(sent, "archive", settings_file(tmp_path, peer.peer()))
        assert done.exit_code == 0, done.exception
        assert f"result 1 of study {sent.key[:8]} is in the outbox again" in done.output
        outbox.run_once()
        assert peer.uids == first * 2
        outbox.run_once()
        assert peer.uids == first * 2
    assert [one.who for one in audit.read(sent.state) if one.event == "handed_over_again"] == [
        "archive"
    ]


@pytest.mark.parametrize("kinds", [(ResultKind.SR,), tuple(ResultKind)])
def test_a_new_archive_is_sent_an_old_result(
    sent: Any, clock: Any, tmp_path: Path, kinds: tuple[ResultKind, ...]
) -> None:
    """Also one that is sent more than had been made; what the others have got is not forgotten."""
    write_receipt(sent.folder, "archive", Receipt(delivered_at="2026-11-28T12:00:00+00:00"))
    with archive(has_commitment=False) as peer:
        new = replace(peer.peer(), name="new", results=kinds)
        old = sent.settings.peers[0]
        done = send(sent, "new", settings_file(tmp_path, old, new))
        assert done.exit_code == 0, done.exception
        Outbox(sent.state, sent.to(new), clock, patience_s=30, answer_wait_s=0).run_once()
        assert len(peer.stored) == len(kinds)
    receipts = [read_receipt(sent.folder, name) for name in ("archive", "new")]
    assert all(one is not None and one.delivered_at for one in receipts)


@pytest.mark.parametrize(
    ("name", "key", "says"),
    [
        ("elsewhere", "", "is sent nothing by the settings"),
        ("archive", "abc", "no study of the worklist"),
        ("archive", "0" * 32, "no study of the worklist"),
    ],
)
def test_what_cannot_be_sent_is_one_line(
    sent: Any, tmp_path: Path, name: str, key: str, says: str
) -> None:
    done = send(sent, name, settings_file(tmp_path, *sent.settings.peers), key)
    assert isinstance(done.exception, EdgeMedgemmaError)
    assert says in str(done.exception)
