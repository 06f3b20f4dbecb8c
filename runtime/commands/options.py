"""Options that several commands share."""

from pathlib import Path

import click

import edge_medgemma.runtime
from edge_medgemma.runtime.backends.providers import Provider, Providers, parse_providers

BUILTIN_ENGINE = Path(edge_medgemma.runtime.__file__).parent / "engines" / "phantom"
"""The demonstration engine that comes with the package."""

engine_option = click.option(
    "--engine",
    "engine_directory",
    type=click.Path(path_type=Path),
    default=BUILTIN_ENGINE,
    show_default="built-in demonstration engine",
    metavar="DIR",
    help="Engine directory made by 'edge-medgemma export'.",
)

slices_option = click.option(
    "--slices",
    type=click.IntRange(min=1),
    help="Most slices to show the model.  [default: the protocol's number]",
)

threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]"
)


def _providers(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> Providers:
    return parse_providers(words)


provider_option = click.option(
    "--provider",
    "providers",
    multiple=True,
    callback=_providers,
    metavar="[PART=]NAME",
    help=f"Library that runs the engine: {', '.join(Provider)}. PART is vision or decoder, both "
    "without it; may be repeated.  [default: auto]",
)
