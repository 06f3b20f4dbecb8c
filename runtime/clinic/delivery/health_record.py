"""Telling a health-record system: FHIR over HTTP, HL7 v2 over MLLP, or files in a folder."""

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

from edge_medgemma.runtime.clinic.delivery.problems import (
    DeliveryProblem,
    DestinationError,
    ResultRefusedError,
)
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.files import write_atomically

ANSWER_S = 30.0

_MLLP_START, _MLLP_END = b"\x0b", b"\x1c\x0d"
_LONGEST_ANSWER = 1 << 20
_ACCEPTED = ("AA", "CA")
"""MSA-1 of a message that was taken. HL7 v2.5.1 table 0008"""


def post_bundle(url: str, bundle: bytes, answer_s: float) -> None:
    """POST a transaction to the base of a FHIR server.

    Raises:
        DestinationError: it is away, does not answer in time, or has an error of its own (5xx).
        ResultRefusedError: it refuses the bundle or an entry of it.
    """
    request = urllib.request.Request(
        url,
        data=bundle,
        method="POST",
        headers={"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"},
    )
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=answer_s) as answer:
            text = answer.read(_LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        is_theirs = error.code >= 500 or error.code == 429
        error.close()
        if is_theirs:
            raise DestinationError(DeliveryProblem.SERVER_ERROR) from None
        raise ResultRefusedError(DeliveryProblem.MESSAGE_REFUSED) from None
    except TimeoutError:
        raise DestinationError(DeliveryProblem.NO_ANSWER) from None
    except (OSError, http.client.HTTPException, ValueError):
        raise DestinationError(DeliveryProblem.UNREACHABLE) from None
    if not all(status.startswith("2") for status in _statuses(text)):
        raise ResultRefusedError(DeliveryProblem.MESSAGE_REFUSED)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Data of a patient go where the settings say, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def _statuses(text: bytes) -> list[str]:
    """Of the entries of a transaction-response; none where the server sends no body."""
    try:
        answer = json.loads(text)
        return [str(entry["response"]["status"]) for entry in answer.get("entry", [])]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def send_message(host: str, port: int, message: bytes, answer_s: float) -> None:
    """Send an HL7 v2 message by MLLP and wait until it is acknowledged.

    Raises:
        DestinationError: the system is away, or does not answer in time.
        ResultRefusedError: it answers that it did not take this message.
    """
    try:
        with socket.create_connection((host, port), timeout=answer_s) as connection:
            connection.settimeout(answer_s)
            connection.sendall(_MLLP_START + message + _MLLP_END)
            answer = _read_frame(connection, time.monotonic() + answer_s)
    except TimeoutError:
        raise DestinationError(DeliveryProblem.NO_ANSWER) from None
    except OSError:
        raise DestinationError(DeliveryProblem.UNREACHABLE) from None
    code, control_id = _acknowledgement(answer)
    if control_id != _field(message, "MSH", 9):
        raise DestinationError(DeliveryProblem.NO_ANSWER)
    if code not in _ACCEPTED:
        raise ResultRefusedError(DeliveryProblem.MESSAGE_REFUSED)


def _read_frame(connection: socket.socket, end_s: float) -> bytes:
    answer = b""
    while _MLLP_END not in answer and len(answer) < _LONGEST_ANSWER:
        if time.monotonic() > end_s:  # a letter now and then is no answer
            raise DestinationError(DeliveryProblem.NO_ANSWER)
        piece = connection.recv(65536)
        if not piece:
            raise DestinationError(DeliveryProblem.BROKE_OFF)
        answer += piece
    return answer.partition(_MLLP_START)[2].partition(_MLLP_END)[0]


def _acknowledgement(answer: bytes) -> tuple[str, str]:
    """MSA-1 and MSA-2."""
    return _field(answer, "MSA", 1), _field(answer, "MSA", 2)


def _field(message: bytes, segment: str, number: int) -> str:
    """A field of the first such segment as it stands; of MSH, field n is number n - 1 here."""
    for line in message.replace(b"\n", b"\r").split(b"\r"):
        fields = line.split(b"|")
        if fields[0] == segment.encode() and len(fields) > number:
            return fields[number].decode("ascii", "replace").strip()
    return ""


def put_files(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """Put files into a folder of their own, each as a whole.

    Raises:
        DestinationError: the folder is not there, or cannot be written.
    """
    if not folder.is_dir():  # a share that is not mounted: never written below its mount point
        raise DestinationError(DeliveryProblem.FOLDER)
    try:
        for file, data in files.items():
            write_atomically(folder / name / file, data)
    except ResourceError:
        raise DestinationError(DeliveryProblem.FOLDER) from None
