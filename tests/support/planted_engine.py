"""Engines of altered checkpoints that say they are of the original: exporters with a fault."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.tiny_checkpoint import export_tiny_engine

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.runtime.manifest import MANIFEST_NAME, dump_manifest, load_manifest

Change = Callable[[dict[str, Any]], None]


def altered(checkpoint: Path, folder: Path, changes: Mapping[str, Change]) -> Path:
    """A copy of a checkpoint folder with JSON files changed in place."""
    shutil.copytree(checkpoint, folder)
    for name, change in changes.items():
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return folder


def engine_that_claims(claimed: Path, exported_from: Path, directory: Path) -> Path:
    """An engine of one checkpoint whose manifest names another as its source."""
    export_tiny_engine(exported_from, directory)
    return claiming(directory, claimed)


def claiming(directory: Path, claimed: Path) -> Path:
    """Name a checkpoint as the source of an engine that exists."""
    manifest = load_manifest(directory)
    opened = open_checkpoint(str(claimed))
    source = replace(manifest.source, name=opened.name, sha256=opened.fingerprint())
    text = dump_manifest(replace(manifest, source=source))
    (directory / MANIFEST_NAME).write_text(text, encoding="utf-8")
    return directory
