"""Which level of the kernels computes in this process: the fastest that the processor really runs."""

import importlib.util
import logging
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edge_medgemma.runtime.host import machine_identity
from edge_medgemma.runtime.store.places import Place
from edge_medgemma.runtime.store.verdicts import CachedVerdict, Verdict
from edge_medgemma.runtime.trial import run_trial

try:
    from edge_medgemma.runtime.kernels import cpu_kernels
except ImportError:  # no C compiler was there when the package was installed
    cpu_kernels = None  # type: ignore[assignment]

__all__ = ["KERNELS", "NO_LEVEL", "ONNXRUNTIME", "cpu_kernels", "kernel_level", "level_absence"]
__all__ += ["LevelChoice", "choose_level", "kernel_notes"]

TRIAL = "edge_medgemma.runtime.backends.onnxruntime.level_trial"
"""Module that runs every kernel of a level, or with `none` onnxruntime alone."""

KERNELS, ONNXRUNTIME = "kernels", "onnxruntime"
"""Whose code a step of the trial runs."""

NO_LEVEL = "none"

X86_LEVELS = ("amx", "avx512", "avx_vnni", "avx2")
ARM_LEVELS = ("i8mm", "dotprod")
"""Every level of an architecture, the fastest first."""

X86_MACHINES = ("x86_64", "amd64")

NO_LIBRARY = ""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LevelChoice:
    """What the trials of this machine came to."""

    level: str | None
    """The level in use."""
    faults: tuple[str, ...] = ()
    """Why faster ones that the processor claims are not used, a sentence each."""
    library_fault: str | None = None
    """Why onnxruntime itself does not run here, a sentence; then no level is used either."""


@cache
def choose_level() -> LevelChoice:
    """Try levels, the fastest first, each once a machine, and use the first that passes.

    A trial takes half a second in a child process. Its verdict is kept in the user's cache folder.
    """
    if _onnxruntime_files() == NO_LIBRARY:
        return LevelChoice(None)
    levels = []
    if cpu_kernels is not None:
        levels = cpu_kernels.claimed_levels()
    faults: list[str] = []
    for level in [*levels, NO_LEVEL]:
        verdict = _verdict(level)
        if verdict.fault is not None and verdict.culprit == ONNXRUNTIME:
            return LevelChoice(None, tuple(faults), verdict.fault)
        if verdict.fault is not None:
            faults.append(verdict.fault)
            LOG.warning("%s", verdict.fault)
        elif level != NO_LEVEL:
            cpu_kernels.use_level(level)
            return LevelChoice(level, tuple(faults))
    return LevelChoice(None, tuple(faults))


def kernel_level() -> str | None:
    """Name of the level in use, chosen at the first call; None where no kernel runs here."""
    return choose_level().level


def level_absence() -> str | None:
    """Why no kernel computes here; None where one does."""
    if cpu_kernels is None:
        return "no kernels: there was no C compiler at installation"
    choice = choose_level()
    if choice.level is not None:
        return None
    if _onnxruntime_files() == NO_LIBRARY:
        return "no kernels: onnxruntime is not installed"
    if choice.library_fault is not None or choice.faults:
        return choice.library_fault or choice.faults[-1]
    return "no kernels: they are for x86-64 with AVX2 and for arm64 with dot products"


def kernel_notes() -> tuple[str, ...]:
    """Why no faster level is used, a sentence each; empty where the fastest is."""
    choice = choose_level()
    notes = list(choice.faults)
    if cpu_kernels is not None:
        levels = X86_LEVELS if platform.machine().lower() in X86_MACHINES else ARM_LEVELS
        faster = levels[: levels.index(choice.level)] if choice.level in levels else levels
        compiled, claimed = cpu_kernels.compiled_levels(), cpu_kernels.claimed_levels()
        for level in faster:
            if level not in compiled:
                notes.append(f"level {level} is not compiled in: the compiler was too old for it")
        lacking = [level for level in faster if level in compiled and level not in claimed]
        if lacking:
            notes.append(f"this processor lacks what is faster: {', '.join(lacking)}")
    absence = level_absence()
    return tuple(dict.fromkeys([*notes, *([absence] if absence else [])]))


def _verdict(level: str) -> Verdict:
    """Of this level, from the cache or from a trial now."""
    kept = CachedVerdict(Place.TRIALS.folder, machine_identity(), _onnxruntime_files(), level)
    verdict = kept.read()
    if verdict is not None:
        return verdict
    outcome = run_trial(TRIAL, [level])
    if outcome.fault is None:
        verdict = Verdict(None)
    elif outcome.culprit == ONNXRUNTIME:
        verdict = Verdict(f"onnxruntime {outcome.fault}", ONNXRUNTIME)
    elif level == NO_LEVEL:  # before onnxruntime did anything
        verdict = Verdict(None)
    else:
        claimed = f"level {level} of the kernels, which this processor claims to run, is not used"
        verdict = Verdict(f"{claimed}: it {outcome.fault}", KERNELS)
    if outcome.is_certain:
        kept.write(verdict)
    return verdict


def _onnxruntime_files() -> str:
    """Names, sizes and times of the installed library's files, without loading it."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return NO_LIBRARY
    folder = Path(spec.origin).parent / "capi"
    files = sorted(path for path in folder.glob("*.so*") if path.is_file())
    words = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return f"{os.fspath(folder)} {words}"
