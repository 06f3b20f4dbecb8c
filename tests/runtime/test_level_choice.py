"""Which level is used after which ends of trials, and what is kept of them."""

import logging
import multiprocessing
from pathlib import Path

import pytest

from edge_medgemma.runtime.backends.onnxruntime import session
from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.kernels import level
from edge_medgemma.runtime.kernels.level import LevelChoice, choose_level, level_absence
from edge_medgemma.runtime.trial import Outcome

PASSED = Outcome(None, level.KERNELS, True)
DIED = Outcome("dies of SIGILL in a product", level.KERNELS, True)
KILLED = Outcome("dies of SIGKILL in a product", level.KERNELS, False)
LIBRARY_DIED = Outcome("dies of SIGILL in a product", level.ONNXRUNTIME, True)


class Kernels:
    """The module of kernels of a processor of two levels."""

    used: str | None = None

    def claimed_levels(self) -> list[str]:
        return ["fast", "slow"]

    def compiled_levels(self) -> list[str]:
        return ["unclaimed", "fast", "slow", "slower"]

    def use_level(self, name: str | None) -> None:
        self.used = name


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Set how trials end; gives the list of those that were begun."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    begun: list[str] = []
    kernels = Kernels()
    monkeypatch.setattr(level, "cpu_kernels", kernels)

    def prepare(**ends: Outcome) -> list[str]:
        def run_trial(module: str, arguments: list[str]) -> Outcome:
            begun.extend(arguments)
            return ends[arguments[0]]

        begun.clear()
        kernels.used = None
        choose_level.cache_clear()
        monkeypatch.setattr(level, "run_trial", run_trial)
        return begun

    yield prepare
    choose_level.cache_clear()


def test_the_fastest_that_passes_is_used_and_tried_once(tried) -> None:
    begun = tried(fast=PASSED)
    assert choose_level() == LevelChoice("fast") and level.cpu_kernels.used == "fast"
    assert begun == ["fast"] and level_absence() is None
    assert tried() == [] and choose_level() == LevelChoice("fast"), "from the kept verdict"


def test_a_level_that_dies_is_passed_over_and_said(tried, caplog) -> None:
    begun = tried(fast=DIED, slow=PASSED)
    sentence = (
        "level fast of the kernels, which this processor claims to run, is not used: it dies of "
        "SIGILL in a product"
    )
    with caplog.at_level(logging.WARNING):
        assert choose_level() == LevelChoice("slow", (sentence,))
    assert begun == ["fast", "slow"] and caplog.messages == [sentence]
    tried()
    assert choose_level() == LevelChoice("slow", (sentence,))


def test_where_all_die_there_are_no_kernels(tried) -> None:
    tried(fast=DIED, slow=DIED, none=PASSED)
    choice = choose_level()
    assert choice.level is None and len(choice.faults) == 2 and choice.library_fault is None
    assert level_absence() == choice.faults[1]


def test_what_was_killed_from_outside_is_tried_again(tried) -> None:
    tried(fast=KILLED, slow=PASSED)
    assert choose_level().level == "slow"
    begun = tried(fast=PASSED)
    assert choose_level().level == "fast" and begun == ["fast"]


def test_another_processor_with_this_home_tries_for_itself(tried, monkeypatch) -> None:
    tried(fast=PASSED)
    choose_level()
    monkeypatch.setattr(level, "machine_identity", lambda: "another processor")
    begun = tried(fast=DIED, slow=PASSED)
    assert choose_level().level == "slow" and begun == ["fast", "slow"]


def test_where_onnxruntime_dies_it_is_not_loaded(tried, tmp_path) -> None:
    begun = tried(fast=LIBRARY_DIED)
    assert choose_level() == LevelChoice(None, (), "onnxruntime dies of SIGILL in a product")
    assert begun == ["fast"], "no other level is to blame"
    with pytest.raises(ProviderError, match="SIGILL in a product: it does not run on this proc"):
        session.open_session(tmp_path / "decoder.onnx", 1)


def test_without_onnxruntime_nothing_is_tried(tried, monkeypatch) -> None:
    begun = tried()
    monkeypatch.setattr(level, "_onnxruntime_files", lambda: level.NO_LIBRARY)
    assert choose_level() == LevelChoice(None) and begun == []
    assert level_absence() == "no kernels: onnxruntime is not installed"


def test_why_no_faster_level_is_used(tried, monkeypatch) -> None:
    tried(fast=DIED, slow=PASSED)
    monkeypatch.setattr(level, "X86_LEVELS", ("uncompiled", "unclaimed", "fast", "slow", "slower"))
    monkeypatch.setattr(level.platform, "machine", lambda: "x86_64")
    sentence, *others = level.kernel_notes()
    assert sentence.startswith("level fast of the kernels")
    assert others == [
        "level uncompiled is not compiled in: the compiler was too old for it",
        "this processor lacks what is faster: unclaimed",
    ]


def test_this_machine_runs_the_fastest_level_that_it_claims(tmp_path, monkeypatch) -> None:
    """A real trial; one that cannot run, as after a change of the kernels' calls, is a fault as well."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choose_level.cache_clear()
    claimed = level.cpu_kernels.claimed_levels() if level.cpu_kernels else []
    assert choose_level() == LevelChoice(claimed[0] if claimed else None)


def _choose(_: int) -> str | None:
    choose_level.cache_clear()
    return choose_level().level


def test_two_processes_at_once_come_to_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_choose, range(2))
    assert first == second == choose_level().level
    assert all(path.suffix == ".json" for path in (tmp_path / "edge-medgemma/trials").iterdir())
