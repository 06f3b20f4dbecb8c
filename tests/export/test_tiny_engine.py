"""The committed engine that tests of the runtime use is the one the exporter writes."""

import dataclasses
from pathlib import Path

from edge_medgemma.runtime.manifest import load_manifest


def test_the_committed_engine_is_current(engine: Path, tiny_engine_directory: Path) -> None:
    written, committed = load_manifest(engine), load_manifest(tiny_engine_directory)
    assert committed == dataclasses.replace(written, tools=committed.tools), "run make tiny-engine"
    for name in ("manifest.json", *committed.files):
        assert (tiny_engine_directory / name).is_file()
