"""`edge-medgemma doctor`: what runs on this device, and what to do about the rest."""

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from edge_medgemma.runtime.backends.probe import (
    Probe,
    cuda_kernels,
    installed_onnxruntimes,
    onnxruntime_conflict,
    probe_all,
)
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.triage.records import program_version

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found."""

    program_version: str
    python_version: str
    system: str
    processor: str
    cores: int
    onnxruntime_packages: dict[str, str]
    nvidia_driver: str
    cuda_kernels: tuple[int, ...]
    """Compute capabilities times ten for which the installed onnxruntime has kernels."""
    providers: tuple[Probe, ...]
    problems: tuple[str, ...]
    """What is broken, not merely absent."""


@click.command(epilog="Example: edge-medgemma doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print what a machine reads.")
def command(as_json: bool) -> None:
    """Say what runs on this device, and what to install.

    Runs one small model with every library. Exits with 1 where the installation is broken, not
    where something is merely absent.
    """
    found = diagnose()
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        _print(found)
    if found.problems:
        sys.exit(1)


def diagnose() -> Diagnosis:
    """Look at everything once."""
    packages = installed_onnxruntimes()
    conflict = onnxruntime_conflict(packages)
    probes = probe_all()
    problems = [conflict] if conflict else []
    if not any(probe.works for probe in probes):
        problems.append("nothing runs here; run: pip install 'edge-medgemma[cpu]'")
    kernels = cuda_kernels()
    return Diagnosis(
        program_version=program_version(),
        python_version=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        onnxruntime_packages=packages,
        nvidia_driver=_nvidia_driver(),
        cuda_kernels=tuple(sorted(kernels.compiled)) if kernels else (),
        providers=probes,
        problems=tuple(problems),
    )


def _print(found: Diagnosis) -> None:
    table = Table("provider", "works", "what was found")
    for probe in found.providers:
        works = Text("yes", style="green") if probe.works else Text("no", style="dim")
        table.add_row(probe.name, works, Text(probe.detail))
    packages = ", ".join(
        f"{name} {version}" for name, version in found.onnxruntime_packages.items()
    )
    kernels = ", ".join(f"{sm // 10}.{sm % 10}" for sm in found.cuda_kernels)
    lines = [
        f"edge-medgemma {found.program_version}, Python {found.python_version}, {found.system}",
        f"processor: {found.processor}, {found.cores} cores",
        f"onnxruntime packages: {packages or 'none'}",
        f"NVIDIA driver: {found.nvidia_driver or 'none'}",
    ]
    if kernels:
        lines.append(f"onnxruntime has CUDA kernels for compute capability {kernels}")
    lines += [f"PROBLEM: {problem}" for problem in found.problems]
    print_table(table, *map(Text, lines))


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor() or "unknown"


def _nvidia_driver() -> str:
    try:
        return NVIDIA_DRIVER.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return ""
