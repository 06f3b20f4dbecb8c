"""`edge-medgemma doctor`: providers that run on this device, and what to do about the others."""

import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import psutil
from rich.table import Table
from rich.text import Text

from edge_medgemma import __version__
from edge_medgemma.runtime.backends.gpu import DEVICES, DeviceBudget, choose
from edge_medgemma.runtime.backends.probe import (
    Probe,
    installed_onnxruntimes,
    onnxruntime_conflict,
    probe_all,
)
from edge_medgemma.runtime.backends.select import (
    AUTOMATIC,
    FASTER_VISION,
    Fallback,
    Provider,
    unfit_for,
)
from edge_medgemma.runtime.backends.tensorrt.plan_files import RECORD_NAME, plan_folder
from edge_medgemma.runtime.commands.options import engine_option
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.errors import EdgeMedgemmaError
from edge_medgemma.runtime.host import available_bytes, processor_name, usable_cores
from edge_medgemma.runtime.kernels.level import kernel_level, kernel_notes
from edge_medgemma.runtime.manifest import Manifest, Precision, load_manifest
from edge_medgemma.runtime.memory.device_memory import largest_device_slices
from edge_medgemma.runtime.memory.host_memory import gigabytes, largest_slices, plan_memory
from edge_medgemma.runtime.parity import parity_words
from edge_medgemma.runtime.store.ownership import distrusted_places
from edge_medgemma.runtime.thermal import heat_words, read_throttling
from edge_medgemma.runtime.topology import CoreKind, choose_threads, core_words

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class EngineDiagnosis:
    """Providers that `auto` takes for an engine, and how many slices fit into memory."""

    name: str
    """Hub id or folder name of its checkpoint."""
    revision: str | None
    precision: Precision
    parity: str
    """How far it is from its checkpoint, on record, or that nobody measured."""
    vision_provider: Provider | None
    """Provider of the vision tower; null where none runs it."""
    decoder_provider: Provider | None
    """Provider of the decoder; null where none runs it."""
    fallbacks: tuple[Fallback, ...]
    """Faster providers that are not used, and why."""
    tensorrt_plans: str
    """`none`, `built for this device`, or why the plans cannot be used here."""
    max_slices_on_cpu: int
    """Most slices of 512 x 512 pixels that fit into the host's memory."""
    peak_bytes_of_one_slice: int
    """Peak memory of a triage of one slice on the CPU."""
    max_slices_on_gpu: int | None
    """Most slices of 512 x 512 pixels on the GPU that runs the decoder; null without a GPU."""
    gpu_free_bytes: int | None
    """Free memory of that GPU."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Report on the device: the backends that run here, the software, and what is broken."""

    schema_version: Literal[1]
    program_version: str
    python_version: str
    system: str
    processor: str
    cores: int
    """Number of CPUs, hardware threads included, that a process may use."""
    core_kinds: tuple[CoreKind, ...]
    """Cores that are about equally fast, the fastest first; empty where the system does not tell."""
    threads: int
    """Threads that compute unless `--threads` says otherwise."""
    threads_reason: str
    """Why so many: the end of a sentence."""
    kernel_level: str | None
    """Instruction set of the compiled kernels in use; null where none is."""
    kernel_notes: tuple[str, ...]
    """Why no faster kernels are used, a sentence each."""
    heat: str
    """Whether heat slows the cores, as far as the system tells."""
    available_bytes: int
    """Memory that a process may hold."""
    memory_bytes: int
    """Memory of the machine."""
    onnxruntime_packages: dict[str, str]
    """Version of each installed distribution of onnxruntime."""
    nvidia_driver: str | None
    providers: tuple[Probe, ...]
    engine: EngineDiagnosis
    problems: tuple[str, ...]
    """Sentences on what is broken, not merely absent."""


@click.command(epilog="Example: edge-medgemma doctor --engine engines/medgemma")
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(engine_directory: Path, as_json: bool) -> None:
    """Say what runs on this device, and what to install.

    Runs one small model with every provider, and says which of them auto takes for an engine and
    how many slices fit into memory. Exits with 1 where the installation is broken, not where
    something is merely absent.
    """
    found = diagnose(engine_directory)
    if as_json:
        click.echo(dump_json(found), nl=False)
    else:
        _print(found)
    if found.problems:
        sys.exit(1)


def diagnose(engine_directory: Path) -> Diagnosis:
    """Probe every provider and plan the engine's memory, without loading the engine.

    Raises:
        EngineError: there is no engine.
    """
    manifest = load_manifest(engine_directory)
    packages = installed_onnxruntimes()
    conflict = onnxruntime_conflict(packages)
    probes = probe_all()
    problems = [conflict] if conflict else []
    problems += distrusted_places()
    if not any(probe.works for probe in probes):
        problems.append("no provider works; from a checkout, run: pip install '.[cpu]'")
    engine = diagnose_engine(engine_directory, manifest, probes)
    if engine.decoder_provider is None:
        problems.append(f"no provider runs the engine: {engine.fallbacks[-1].reason}")
    chosen = choose_threads()
    return Diagnosis(
        schema_version=1,
        program_version=__version__,
        python_version=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=processor_name(),
        cores=usable_cores(),
        core_kinds=chosen.kinds,
        threads=chosen.threads,
        threads_reason=chosen.reason,
        kernel_level=kernel_level(),
        kernel_notes=kernel_notes(),
        heat=heat_words(read_throttling()),
        available_bytes=available_bytes(),
        memory_bytes=psutil.virtual_memory().total,
        onnxruntime_packages=packages,
        nvidia_driver=_nvidia_driver(),
        providers=probes,
        engine=engine,
        problems=tuple(problems),
    )


def diagnose_engine(
    directory: Path, manifest: Manifest, probes: tuple[Probe, ...]
) -> EngineDiagnosis:
    """Providers that `auto` would take, and the slices that fit, without loading the engine."""
    memory = available_bytes()
    vision: Provider | None = None
    decoder: Provider | None = None
    budget: DeviceBudget | None = None
    fallbacks: tuple[Fallback, ...]
    try:
        choice = choose(directory, manifest, AUTOMATIC, DEVICES)
        vision, decoder, fallbacks = choice.vision, choice.decoder, choice.fallbacks
        budget = choice.decoder_budget
    except EdgeMedgemmaError as error:
        fallbacks = (Fallback(Provider.AUTO, str(error)),)
    if vision is Provider.AUTO:
        vision, passed_over = _vision_on_cpu(manifest, probes)
        fallbacks += passed_over
    return EngineDiagnosis(
        name=manifest.source.name,
        revision=manifest.source.revision,
        precision=manifest.precision,
        parity=parity_words(directory, manifest),
        vision_provider=vision,
        decoder_provider=Provider.CPU if decoder is Provider.AUTO else decoder,
        fallbacks=fallbacks,
        tensorrt_plans=_plans(directory, manifest),
        max_slices_on_cpu=largest_slices(manifest, memory),
        peak_bytes_of_one_slice=plan_memory(manifest, 1).peak_bytes,
        max_slices_on_gpu=largest_device_slices(manifest, budget, memory) if budget else None,
        gpu_free_bytes=budget.free_bytes if budget else None,
    )


def _vision_on_cpu(
    manifest: Manifest, probes: tuple[Probe, ...]
) -> tuple[Provider, tuple[Fallback, ...]]:
    """What `auto` tries first for the vision tower, and why nothing faster."""
    faults = {one.name: one.detail for one in probes if not one.works}
    fallbacks: list[Fallback] = []
    for faster in FASTER_VISION:
        unfit = unfit_for(manifest, faster)
        if unfit is None and faster not in faults:
            return faster, tuple(fallbacks)
        fallbacks.append(unfit or Fallback(faster, faults[faster]))
    return Provider.CPU, tuple(fallbacks)


def _plans(directory: Path, manifest: Manifest) -> str:
    """State of the TensorRT plans in an engine directory."""
    if not (plan_folder(directory) / RECORD_NAME).is_file():
        return "none"
    try:
        DEVICES[Provider.TENSORRT].identity(directory, manifest)
    except EdgeMedgemmaError as error:
        return str(error)
    return "built for this device"


def _engine_lines(engine: EngineDiagnosis, broken: set[str]) -> list[str]:
    """`broken`: providers of which the table has said already why they do not work here."""
    revision = f", revision {engine.revision}" if engine.revision else ""
    weights = engine.precision
    lines = [
        f"engine: {engine.name}{revision}",
        f"  precision: decoder {weights.decoder}, head {weights.head}, vision tower {weights.vision}",
        f"  parity: {engine.parity}",
        f"  vision tower: {engine.vision_provider or 'no provider'}",
        f"  decoder: {engine.decoder_provider or 'no provider'}",
        *(
            f"  {one.provider} not used: {one.reason}"
            for one in engine.fallbacks
            if one.provider not in broken
        ),
        f"  TensorRT plans: {engine.tensorrt_plans}",
        f"  CPU memory: at most {engine.max_slices_on_cpu} slices; one slice needs "
        + gigabytes(engine.peak_bytes_of_one_slice),
    ]
    if engine.max_slices_on_gpu is not None and engine.gpu_free_bytes is not None:
        lines.append(
            f"  GPU memory: at most {engine.max_slices_on_gpu} slices; "
            f"{gigabytes(engine.gpu_free_bytes)} free"
        )
    return lines


def _print(found: Diagnosis) -> None:
    table = Table("provider", "works", "device, or what is missing")
    for probe in found.providers:
        works = Text("yes", style="green") if probe.works else Text("no", style="dim")
        table.add_row(probe.name, works, Text(probe.detail))
    packages = ", ".join(
        f"{name} {version}" for name, version in found.onnxruntime_packages.items()
    )
    lines = [
        f"edge-medgemma {found.program_version}, Python {found.python_version}, {found.system}",
        f"processor: {found.processor}, {core_words(found.core_kinds)}",
        f"threads: {found.threads}, {found.threads_reason}",
        f"kernels: {found.kernel_level or 'none of ours'}",
        *(f"  {note}" for note in found.kernel_notes),
        f"heat: {found.heat}",
        f"memory available: {gigabytes(found.available_bytes)} of {gigabytes(found.memory_bytes)}",
        f"onnxruntime packages: {packages or 'none'}",
        f"NVIDIA driver: {found.nvidia_driver or 'none'}",
    ]
    broken = {probe.name for probe in found.providers if not probe.works}
    lines += map(printable, _engine_lines(found.engine, broken))
    lines += [f"PROBLEM: {problem}" for problem in found.problems]
    print_table(table, *map(Text, lines))


def _nvidia_driver() -> str | None:
    """First line of the kernel module's version file; None without the module."""
    try:
        return NVIDIA_DRIVER.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return None
