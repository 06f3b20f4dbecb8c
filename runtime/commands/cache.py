"""`edge-medgemma cache`: what earlier runs keep on disk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.table import Table

from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.reporting.labels import count
from edge_medgemma.runtime.store.scan_cache import CacheEntry, ScanCache
from edge_medgemma.runtime.triage.scoring.blank_baseline import BaselineCache

DAY_S = 86_400.0
_SHORT_HASH_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class _KeptFile:
    """A file and the engine it is of; empty for what any engine of the machine left."""

    entry: CacheEntry
    engine_sha256: str


@click.group(epilog="Example: edge-medgemma cache clear --older-than 7")
def command() -> None:
    """List or delete what earlier runs keep so that the next ones are quick.

    'triage' and 'ask' keep what the model made of each slice (features), of all slices together
    (prefix), and its answers about blank slices (control). Names of files are hashes and no text of
    a scan is kept, but features and prefixes are derived from its pixels: treat them as you treat
    the scan. Only you can read them.
    """


@command.command("list", epilog="Example: edge-medgemma cache list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, file by file.")
def list_files(as_json: bool) -> None:
    """Print kind, engine, size and last use of what is kept."""
    entries = [*ScanCache().entries(), *BaselineCache().entries()]
    kept = [_KeptFile(entry, entry.read_engine_sha256()) for entry in entries]
    if as_json:
        total = sum(entry.bytes for entry in entries)
        click.echo(json.dumps({"bytes": total, "files": [_as_json(k) for k in kept]}, indent=2))
    else:
        _print_table(kept)


@command.command(epilog="Example: edge-medgemma cache clear --older-than 7")
@click.option(
    "--older-than", "days", type=click.FloatRange(min=0), default=0.0, metavar="DAYS",
    help="Only what was not used for so many days.  [default: everything]",
)  # fmt: skip
def clear(days: float) -> None:
    """Delete what is kept; the next run computes it again."""
    unused_for_s = days * DAY_S
    gone = [*ScanCache().clear(unused_for_s), *BaselineCache().clear(unused_for_s)]
    freed = megabytes(sum(entry.bytes for entry in gone))
    click.echo(f"{count(len(gone), 'file')} deleted, {freed} freed")


def megabytes(size: int) -> str:
    """Bytes as `1.3 MB`, `4,000.0 MB`."""
    return f"{size / 1e6:,.1f} MB"


def age(seconds: float) -> str:
    """The largest whole unit: `12 s ago`, `3 min ago`, `5 h ago`, `2 d ago`."""
    for unit, unit_s in (("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit} ago"
    return f"{int(seconds)} s ago"


def _print_table(kept: Sequence[_KeptFile]) -> None:
    """One row for each kind and engine."""
    groups: dict[tuple[str, str], list[CacheEntry]] = {}
    for one in kept:
        groups.setdefault((one.entry.kind, one.engine_sha256), []).append(one.entry)
    table = Table("kind", "engine", "files", "size", "last used")
    for (kind, engine), entries in sorted(groups.items()):
        table.add_row(
            kind,
            engine[:_SHORT_HASH_CHARACTERS] or "not stated",
            str(len(entries)),
            megabytes(sum(entry.bytes for entry in entries)),
            age(min(entry.unused_s for entry in entries)),
        )
    total = sum(one.entry.bytes for one in kept)
    print_table(table, f"{count(len(kept), 'file')}, {megabytes(total)} in all")


def _as_json(kept: _KeptFile) -> dict[str, object]:
    return {
        "name": kept.entry.path.name,
        "kind": kept.entry.kind,
        "engine_sha256": kept.engine_sha256 or None,
        "bytes": kept.entry.bytes,
        "unused_s": round(kept.entry.unused_s, 3),
    }
