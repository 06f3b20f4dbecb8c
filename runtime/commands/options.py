"""Options that several commands share."""

from pathlib import Path

import click

import edge_medgemma.runtime
from edge_medgemma.runtime.backends.select import Provider, Providers, parse_providers
from edge_medgemma.runtime.slicing.volume import Modality
from edge_medgemma.runtime.store.scan_cache import DEFAULT_LIMIT_BYTES, ScanCache
from edge_medgemma.runtime.triage.protocol import Protocol, load_protocol

BUILTIN_ENGINE = Path(edge_medgemma.runtime.__file__).parent / "engines" / "demo"
"""The demo engine that comes with the package."""

BYTES_PER_GB = 1e9

engine_option = click.option(
    "--engine",
    "engine_directory",
    type=click.Path(path_type=Path),
    default=BUILTIN_ENGINE,
    show_default="built-in demo engine",
    metavar="DIR",
    help="Engine directory made by 'edge-medgemma export'.",
)


def _protocol(_: click.Context, __: click.Parameter, word: str) -> Protocol | None:
    return None if word == "auto" else load_protocol(word)


protocol_option = click.option(
    "--protocol",
    callback=_protocol,
    default="auto",
    show_default=True,
    metavar="auto|NAME|FILE",
    help="Findings and instruction; auto goes by modality and body part.",
)

modality_option = click.option(
    "--modality",
    type=click.Choice([Modality.CT.value, Modality.MR.value]),
    callback=lambda _, __, word: Modality(word) if word else None,
    help="Kind of scan of NIfTI files, which do not tell it.  [default: by their values]",
)

series_option = click.option(
    "--series",
    "series_uid",
    metavar="KEY",
    help="Look at this series only; 'inspect' prints the keys.",
)

slices_option = click.option(
    "--slices",
    type=click.IntRange(min=1),
    help="Most slices to show the model.  [default: the protocol's number, or fewer that the plans hold]",
)

thresholds_option = click.option(
    "--thresholds",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Fitted thresholds of 'edge-medgemma thresholds'.  [default: thresholds.json in the engine "
    "directory, where there is one]",
)

threads_option = click.option(
    "--threads", type=click.IntRange(min=1),
    help="CPU threads.  [default: by the processor's cores; 'doctor' says how many and why]",
)  # fmt: skip

no_cache_option = click.option(
    "--no-cache", is_flag=True,
    help="Keep nothing derived from the scan on disk and use nothing kept.",
)  # fmt: skip

cache_size_option = click.option(
    "--cache-size", "cache_gb", type=click.FloatRange(min=0, min_open=True), metavar="GB",
    default=DEFAULT_LIMIT_BYTES / BYTES_PER_GB, show_default=True,
    envvar="EDGE_MEDGEMMA_CACHE_GB", show_envvar=True,
    help="What is kept beyond this size is deleted, the least recently used first.",
)  # fmt: skip


def open_scan_cache(no_cache: bool, cache_gb: float) -> ScanCache | None:
    """The user's scan cache; None where it is not wanted."""
    return None if no_cache else ScanCache(limit_bytes=int(cache_gb * BYTES_PER_GB))


def _providers(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> Providers:
    return parse_providers(words)


trace_option = click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write where the time went, for ui.perfetto.dev.",
)

provider_option = click.option(
    "--provider",
    "providers",
    multiple=True,
    callback=_providers,
    metavar="[PART=]NAME",
    help=f"Library that runs the engine: {', '.join(Provider)}. PART is vision or decoder, both "
    "without it; may be repeated.  [default: auto]",
)
