"""`edge-medgemma doctor`: what runs on this device, and what to do about the rest."""

import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from edge_medgemma import __version__
from edge_medgemma.runtime.backends.gpu import DEVICES, DeviceBudget, choose
from edge_medgemma.runtime.backends.probe import (
    Probe,
    cuda_kernels,
    installed_onnxruntimes,
    onnxruntime_conflict,
    probe_all,
)
from edge_medgemma.runtime.backends.select import AUTOMATIC, Fallback, Provider, too_small
from edge_medgemma.runtime.backends.tensorrt.plan_files import RECORD_NAME, plan_folder
from edge_medgemma.runtime.commands.options import engine_option
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.cores import usable_cores
from edge_medgemma.runtime.errors import EdgeMedgemmaError
from edge_medgemma.runtime.manifest import Manifest, load_manifest
from edge_medgemma.runtime.memory.device_memory import largest_device_slices
from edge_medgemma.runtime.memory.host_memory import available_bytes, largest_slices, plan_memory

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class EngineDiagnosis:
    """What this device makes of an engine."""

    name: str
    vision_provider: str | None
    """What `auto` takes; None where nothing runs the engine"""
    decoder_provider: str | None
    fallbacks: tuple[Fallback, ...]
    tensorrt_plans: str
    largest_slices: int | None
    """On the CPU, of 512 x 512; None where the memory is unknown"""
    one_slice_bytes: int
    """Peak on the CPU"""
    device_slices: int | None
    """Most slices of 512 x 512 on the GPU that runs the decoder; None where none does"""
    device_free_bytes: int | None
    """Of that GPU's memory"""


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
    available_bytes: int | None
    """Memory that a process may hold"""
    engine: EngineDiagnosis
    problems: tuple[str, ...]
    """What is broken, not merely absent."""


@click.command(epilog="Example: edge-medgemma doctor --engine engines/medgemma")
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print what a machine reads.")
def command(engine_directory: Path, as_json: bool) -> None:
    """Say what runs on this device, and what to install.

    Runs one small model with every library, and says which of them auto takes for an engine and
    how many slices fit. Exits with 1 where the installation is broken, not where something is
    merely absent.
    """
    found = diagnose(engine_directory)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        _print(found)
    if found.problems:
        sys.exit(1)


def diagnose(engine_directory: Path) -> Diagnosis:
    """Look at everything once.

    Raises:
        EngineError: there is no engine.
    """
    manifest = load_manifest(engine_directory)
    packages = installed_onnxruntimes()
    conflict = onnxruntime_conflict(packages)
    probes = probe_all()
    problems = [conflict] if conflict else []
    if not any(probe.works for probe in probes):
        problems.append("nothing runs here; from a checkout, run: pip install '.[cpu]'")
    engine = diagnose_engine(engine_directory, manifest, probes)
    if engine.decoder_provider is None:
        problems.append(f"nothing here runs the engine: {engine.fallbacks[-1].reason}")
    kernels = cuda_kernels()
    return Diagnosis(
        program_version=__version__,
        python_version=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=usable_cores(),
        onnxruntime_packages=packages,
        nvidia_driver=_nvidia_driver(),
        cuda_kernels=tuple(sorted(kernels.compiled)) if kernels else (),
        providers=probes,
        available_bytes=available_bytes(),
        engine=engine,
        problems=tuple(problems),
    )


def diagnose_engine(
    directory: Path, manifest: Manifest, probes: tuple[Probe, ...]
) -> EngineDiagnosis:
    """What `auto` would take, without loading the engine."""
    memory = available_bytes()
    vision: Provider | None = None
    decoder: Provider | None = None
    room: DeviceBudget | None = None
    fallbacks: tuple[Fallback, ...]
    try:
        choice = choose(directory, manifest, AUTOMATIC, DEVICES)
        vision, decoder, fallbacks = choice.vision, choice.decoder, choice.fallbacks
        room = choice.decoder_budget
    except EdgeMedgemmaError as error:
        fallbacks = (Fallback(Provider.AUTO, str(error)),)
    if vision is Provider.AUTO:
        reason = _without_openvino(manifest, probes)
        vision = Provider.CPU if reason else Provider.OPENVINO
        fallbacks += (Fallback(Provider.OPENVINO, reason),) if reason else ()
    return EngineDiagnosis(
        name=manifest.source.name,
        vision_provider=vision,
        decoder_provider=Provider.CPU if decoder is Provider.AUTO else decoder,
        fallbacks=fallbacks,
        tensorrt_plans=_plans(directory, manifest),
        largest_slices=None if memory is None else largest_slices(manifest, memory),
        one_slice_bytes=plan_memory(manifest, 1).peak_bytes,
        device_slices=None if room is None else largest_device_slices(manifest, room, memory),
        device_free_bytes=None if room is None else room.free_bytes,
    )


def _without_openvino(manifest: Manifest, probes: tuple[Probe, ...]) -> str:
    """Why `auto` stays with onnxruntime; empty where it tries OpenVINO."""
    small = too_small(manifest, Provider.OPENVINO)
    if small is not None:
        return small.reason
    return next((one.detail for one in probes if one.name == "openvino" and not one.works), "")


def _plans(directory: Path, manifest: Manifest) -> str:
    if not (plan_folder(directory) / RECORD_NAME).is_file():
        return "none"
    try:
        DEVICES[Provider.TENSORRT].identity(directory, manifest)
    except EdgeMedgemmaError as error:
        return str(error)
    return "built for this device"


def _engine_lines(found: Diagnosis) -> list[str]:
    engine, memory = found.engine, found.available_bytes
    available = "unknown" if memory is None else f"{memory / 1e9:.1f} GB"
    lines = [
        f"memory available: {available}",
        f"engine {engine.name}: vision on {engine.vision_provider or 'nothing'}, "
        + f"decoder on {engine.decoder_provider or 'nothing'}",
        *(f"  not {one.provider}: {one.reason}" for one in engine.fallbacks),
        f"  TensorRT plans: {engine.tensorrt_plans}",
    ]
    if engine.device_slices is not None and engine.device_free_bytes is not None:
        lines.append(
            f"  on the GPU: at most {engine.device_slices} slices; "
            f"{engine.device_free_bytes / 1e9:.1f} GB of its memory are free"
        )
    if engine.largest_slices is not None:
        lines.append(
            f"  on the CPU: at most {engine.largest_slices} slices; one needs "
            f"{engine.one_slice_bytes / 1e9:.1f} GB"
        )
    return lines


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
    lines += map(printable, _engine_lines(found))
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
