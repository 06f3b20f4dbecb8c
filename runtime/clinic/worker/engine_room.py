"""The engine of the box: opened once, and only one that may speak about patients."""

import os
from pathlib import Path

from edge_medgemma.runtime.backends.select import parse_providers
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.triage.scoring.grounds import check_real_engine
from edge_medgemma.runtime.triage.scoring.operating_points import read_operating_points

DEMO_ENGINE = Path(__file__).parents[2] / "engines" / "demo"

NO_ENGINE = (
    "No engine is set up, so nothing is looked at. Name the folder of an engine that was exported from a "
    "MedGemma checkpoint as `directory` in the part `[engine]` of the settings."
)


def engine_directory(settings: ClinicSettings) -> Path:
    """Folder of the engine that the settings name.

    Raises:
        EngineError: they name none, and this box is not one for demonstration.
    """
    if settings.engine.directory is not None:
        return Path(settings.engine.directory)
    if settings.site.demonstration:
        return DEMO_ENGINE
    raise EngineError(NO_ENGINE)


def open_engine(settings: ClinicSettings) -> Engine:
    """Open the engine, every file of it compared with its SHA-256.

    Raises:
        EngineError: missing, altered, of another version, or one that knows nothing of patients where
            `site.demonstration` is not set.
        ThresholdError: its fitted thresholds are altered.
        ProviderError: no library runs it here.
    """
    directory = engine_directory(settings)
    if not settings.site.demonstration:
        check_real_engine(load_manifest(directory))  # before minutes of checking files
    engine = Engine.open(
        directory,
        threads=settings.engine.threads,
        providers=parse_providers(settings.engine.providers),
    )
    try:
        read_operating_points(directory, None)
    except BaseException:
        engine.close()
        raise
    return engine


def fingerprint(settings: ClinicSettings) -> tuple[str, int, int] | None:
    """What changes when an engine is put in place of another; None while there is none."""
    try:
        manifest = engine_directory(settings) / "manifest.json"
        found = os.stat(manifest)
    except (EngineError, OSError):
        return None
    return (str(manifest), found.st_mtime_ns, found.st_size)
