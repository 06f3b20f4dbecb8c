"""The folder that node, worker and page share, and the names in it."""

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.files import new_file, write_errors

STUDY_KEY = re.compile("[0-9a-f]{32}")
"""What names a study in paths, addresses and the database: nothing of it can be read back."""

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Paths below one folder, readable by its owner alone."""

    path: Path

    @property
    def secret_file(self) -> Path:
        """Key of the study keys; new for every installation."""
        return self.path / "secret"

    @property
    def lock_file(self) -> Path:
        """Held by the one clinic that runs on this folder; the number of its process."""
        return self.path / "lock"

    @property
    def database(self) -> Path:
        """The worklist (SQLite), which can be made anew from the other folders."""
        return self.path / "worklist.sqlite"

    @property
    def audit_file(self) -> Path:
        """Hash-chained lines of who did what, without names of patients."""
        return self.path / "audit.jsonl"

    @property
    def users_file(self) -> Path:
        """Who may log in to the page, with hashes of their passwords."""
        return self.path / "users.json"

    @property
    def tokens_file(self) -> Path:
        """Programs that may use the API, with hashes of their tokens."""
        return self.path / "tokens.json"

    @property
    def setup_code_file(self) -> Path:
        """The code with which the first user is made; gone afterwards."""
        return self.path / "setup-code"

    @property
    def associations_file(self) -> Path:
        """The last connections of scanners and archives, for the setup page (JSON)."""
        return self.path / "associations.json"

    @property
    def incoming(self) -> Path:
        """Files that are being received, on the file system of the spool."""
        return self.path / "incoming"

    @property
    def spool(self) -> Path:
        """Received files, one folder a study."""
        return self.path / "spool"

    @property
    def aside(self) -> Path:
        """Received objects that hold no image to triage: SR, KO, PR, SEG; one folder a study."""
        return self.path / "aside"

    @property
    def arrivals(self) -> Path:
        """What is known of the arrival of each study: one JSON file a study."""
        return self.path / "arrivals"

    @property
    def results(self) -> Path:
        """Reports, one folder a study and in it one a result, numbered from 1."""
        return self.path / "results"

    @property
    def outbox(self) -> Path:
        """Objects to be delivered, one folder a result."""
        return self.path / "outbox"

    @property
    def questions(self) -> Path:
        """Questions to the engine and their answers, deleted once they are read."""
        return self.path / "questions"

    @property
    def cache(self) -> Path:
        """Images made for the page and the engine's scan cache; may be deleted at any time."""
        return self.path / "cache"

    @property
    def certificates(self) -> Path:
        """Certificates and keys of node and page."""
        return self.path / "certificates"

    def create(self) -> None:
        """Make the folders that are missing and the secret; existing ones stay as they are.

        Raises:
            ResourceError: the folder cannot be written.
        """
        with write_errors(self.path):
            for folder in (
                self.path, self.incoming, self.spool, self.aside, self.arrivals, self.results,
                self.outbox, self.questions, self.cache, self.certificates,
            ):  # fmt: skip
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.secret_file.exists():
                with new_file(self.secret_file, mode=0o600) as file:
                    file.write(secrets.token_bytes(_SECRET_BYTES))

    def study_key(self, study_uid: str) -> str:
        """Name of a study in paths, addresses and the database: a keyed hash of its UID.

        Raises:
            ResourceError: the secret is missing or damaged.
        """
        try:
            secret = self.secret_file.read_bytes()
        except OSError as error:
            raise ResourceError(f"could not read '{self.secret_file}': {error.strerror}") from error
        if len(secret) != _SECRET_BYTES:
            raise ResourceError(f"'{self.secret_file}' is damaged; restore it from a copy")
        digest = hmac.digest(secret, study_uid.strip(" \0").encode(), hashlib.sha256)
        return digest.hex()[:32]


def sync_folder(folder: Path) -> None:
    """Force the names in a folder onto the disk, as a rename alone does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
