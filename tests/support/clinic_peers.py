"""Real DICOM peers on loopback: an Orthanc of the test's own, and dcmtk's senders and queries.

All come from Debian's packages (`tests/support/install_peers.sh`); a test marks itself with
`needs("Orthanc", "storescu")` and is skipped where they are missing.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_READY_S = 20
"""Four seconds on an idle machine."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where one of the programs is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(
        bool(missing),
        reason=f"not installed: {', '.join(missing)}; run tests/support/install_peers.sh",
    )


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class DicomAddress:
    """Whom a peer may call: `name` is the peer's own word for it."""

    ae_title: str
    port: int
    name: str = "box"
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Orthanc:
    """A running Orthanc."""

    address: DicomAddress
    http_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.url}/dicom-web"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call of its REST interface; bytes are sent as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def add_modality(self, address: DicomAddress) -> None:
        """Tell it of an AE title that it may send to."""
        self.call(
            "PUT",
            f"/modalities/{address.name}",
            {"AET": address.ae_title, "Host": address.host, "Port": address.port},
        )

    def upload(self, *paths: Path) -> None:
        """Store files, or the files of folders."""
        for file in _files(paths):
            self.call("POST", "/instances", file.read_bytes())

    def find(self, level: str, **keys: str) -> list[dict[str, Any]]:
        """What it holds at a level (`Study`, `Series`, `Instance`), keys as DICOM keywords."""
        found: list[dict[str, Any]] = self.call(
            "POST", "/tools/find", {"Level": level, "Query": keys, "Expand": True}
        )
        return found

    def instance_count(self, study_uid: str) -> int:
        """Instances of a study that it holds."""
        return len(self.find("Instance", StudyInstanceUID=study_uid))

    def send_study(self, study_uid: str, name: str = "box") -> dict[str, Any]:
        """C-STORE a study to a modality and wait for the end; raises where it failed."""
        (study,) = self.find("Study", StudyInstanceUID=study_uid)
        done: dict[str, Any] = self.call(
            "POST",
            f"/modalities/{name}/store",
            {"Resources": [study["ID"]], "Synchronous": True, "StorageCommitment": False},
        )
        return done

    def query(self, name: str, level: str, **keys: str) -> list[dict[str, Any]]:
        """C-FIND a modality; its answers as keyword -> value."""
        query = self.call("POST", f"/modalities/{name}/query", {"Level": level, "Query": keys})
        answers: list[dict[str, Any]] = self.call("GET", f"{query['Path']}/answers?expand&simplify")
        return answers

    def move_here(self, name: str, study_uid: str) -> Any:
        """C-MOVE a study from a modality into this Orthanc and wait for the end."""
        resource = {"StudyInstanceUID": study_uid}
        body = {"Level": "Study", "Resources": [resource], "Synchronous": True}
        return self.call("POST", f"/modalities/{name}/move", body)

    def echo(self, name: str = "box") -> bool:
        """Whether a modality answers its C-ECHO."""
        try:
            self.call("POST", f"/modalities/{name}/echo", {})
        except urllib.error.HTTPError:
            return False
        return True


@contextlib.contextmanager
def running_orthanc(
    folder: Path,
    *,
    ae_title: str = "ORTHANC",
    modalities: Sequence[DicomAddress] = (),
    check_called_ae_title: bool = False,
    settings: dict[str, Any] | None = None,
) -> Iterator[Orthanc]:
    """An Orthanc on free ports of loopback that keeps all it has in `folder`; ended with the block.

    Args:
        folder: made where missing; storage, configuration and log
        modalities: whom it may send to; more by `Orthanc.add_modality`
        check_called_ae_title: refuse associations that call it by another AE title
        settings: further entries of its configuration
    """
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(3):  # a port may be taken between the look and the start
        orthanc = _start(folder, ae_title, modalities, check_called_ae_title, settings or {})
        if orthanc is not None:
            break
    else:
        raise RuntimeError(f"Orthanc did not start: {(folder / 'orthanc.log').read_text()[-2000:]}")
    try:
        yield orthanc
    finally:
        stop(orthanc.process)


def _start(
    folder: Path,
    ae_title: str,
    modalities: Sequence[DicomAddress],
    check_called_ae_title: bool,
    settings: dict[str, Any],
) -> Orthanc | None:
    address, http_port = DicomAddress(ae_title, free_port(), name="orthanc"), free_port()
    configuration = {
        "Name": ae_title,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": address.port,
        "DicomAet": ae_title,
        "DicomCheckCalledAet": check_called_ae_title,
        "DicomCheckModalityHost": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomModalities": {one.name: [one.ae_title, one.host, one.port] for one in modalities},
        "DicomModalitiesInDatabase": True,
        "StableAge": 5,
        "Plugins": [str(DICOMWEB_PLUGIN)] if DICOMWEB_PLUGIN.exists() else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **settings,
    }
    # Modalities of the configuration are not read where they are kept in the database.
    if modalities:
        configuration["DicomModalitiesInDatabase"] = False
    file, log = folder / "orthanc.json", folder / "orthanc.log"
    file.write_text(json.dumps(configuration, indent=1))
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["Orthanc", str(file)], stdout=output, stderr=subprocess.STDOUT, cwd=folder
        )
    orthanc = Orthanc(address, http_port, process, log)
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            orthanc.call("GET", "/system")
            return orthanc
        time.sleep(0.05)
    stop(process)
    return None


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, politely first."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def storescu(
    called: DicomAddress, *paths: Path, calling: str = "SENDER", options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Send files, or the files of folders, in one association; it stops at the first failure."""
    return _run(
        "storescu", *options, "-aet", calling, "-aec", called.ae_title, called.host,
        str(called.port), *map(str, _files(paths)),
    )  # fmt: skip


def dcmsend(
    called: DicomAddress, *paths: Path, calling: str = "SENDER", options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Send files, or the files of folders, with the transfer syntaxes that they have."""
    return _run(
        "dcmsend", *options, "-aet", calling, "-aec", called.ae_title, called.host,
        str(called.port), *map(str, _files(paths)),
    )  # fmt: skip


def echoscu(called: DicomAddress, *, calling: str = "SENDER") -> bool:
    """Whether a C-ECHO is answered."""
    done = _run("echoscu", "-aet", calling, "-aec", called.ae_title, called.host, str(called.port))
    return done.returncode == 0


def findscu(
    called: DicomAddress, *keys: str, calling: str = "SENDER", level: str = "STUDY"
) -> subprocess.CompletedProcess[str]:
    """C-FIND in the study root; keys as `StudyInstanceUID=1.2.3` or `Modality`."""
    arguments = [part for key in (f"QueryRetrieveLevel={level}", *keys) for part in ("-k", key)]
    return _run(
        "findscu", "-S", "-aet", calling, "-aec", called.ae_title, called.host,
        str(called.port), *arguments,
    )  # fmt: skip


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of dcmtk, its messages not translated, its answer at most a minute away."""
    return subprocess.run(
        [program, *arguments], check=False, capture_output=True, text=True, timeout=60, errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found
