"""What is asked of a GPU, in the order of its worth."""

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SCAN = REPOSITORY / "tests/data/ct_head"
CHECKPOINT = REPOSITORY / "tests/data/demo_checkpoint"


@dataclass(frozen=True, slots=True)
class Step:
    """One command and what is expected of it."""

    name: str
    command: tuple[str, ...]
    time_limit_s: float
    document: Path | None = None
    """JSON file that the command writes, or its own output; it becomes part of the results"""
    makes: Path | None = None
    """Folder that must not exist before the command"""
    needs: tuple[str, ...] = ()
    """Names of steps that must have passed"""
    may_fail: bool = False
    """Whether a failure is no surprise, as where a library is not there"""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the steps are run on."""

    provider: str
    shape: str
    """Of the large engine's random weights: a name that `export --synthetic` knows"""
    benchmark: tuple[str, ...] = ()
    """Further options of `benchmark`"""


DEVICE = Subject("cuda", "4b")
DRY_RUN = Subject("cpu", "tiny", ("--repeat", "1"))


def steps(subject: Subject, state: Path, torch_python: str) -> tuple[Step, ...]:
    """Every step.

    Args:
        subject: what they are run on
        state: absolute folder for engines, documents and outputs
        torch_python: interpreter that has torch
    """
    plan = _Plan(subject, state)
    listed = [
        *plan.machine(),
        *plan.engine("small", str(CHECKPOINT), "--activations", "fp16"),
        plan.triage("small"),
        *plan.engine("small bf16", str(CHECKPOINT))[: 2 if subject.provider == "cuda" else 1],
        *plan.engine("int4", "--synthetic", subject.shape, "--activations", "fp16"),
        plan.benchmark("int4"),
        plan.triage("int4"),
        plan.torch(torch_python),
        *plan.engine(
            "fp16", "--synthetic", subject.shape, "--activations", "fp16", "--precision", "fp16"
        ),
        plan.benchmark("fp16"),
        *plan.tensorrt(),
    ]
    if subject.provider == "cpu":
        listed.append(plan.refusal())
    return tuple(listed)


class _Plan:
    """Steps by kind; engines, documents and reports stand in the state folder by their names."""

    def __init__(self, subject: Subject, state: Path) -> None:
        self._subject = subject
        self._state = state

    def machine(self) -> tuple[Step, ...]:
        query = "--query-gpu=name,memory.total,driver_version,clocks.max.sm"
        driver = Step("driver", ("nvidia-smi", query, "--format=csv"), 20, may_fail=True)
        doctor = Step("doctor", _program("doctor", "--json"), 60, self._state / "doctor.out")
        return driver, doctor

    def engine(self, name: str, *source: str) -> tuple[Step, Step]:
        """Export for CUDA, and the self-test of what came of it."""
        engine = self._engine(name)
        export = _program("export", *source, "--target", "cuda", "-o", str(engine))
        document = self._document(f"{name} self-test")
        script = (
            sys.executable, str(HERE / "self_test.py"), str(engine),
            "--provider", self._subject.provider, "--json", str(document),
        )  # fmt: skip
        return (
            Step(f"{name} export", export, 180, makes=engine),
            Step(f"{name} self-test", script, 120, document, needs=(f"{name} export",)),
        )

    def triage(self, name: str) -> Step:
        out = self._state / f"{name}-triage"
        command = _program(
            "triage", str(SCAN), "--engine", str(self._engine(name)), "--provider",
            self._subject.provider, "--no-cache", "--no-report", "--out", str(out),
        )  # fmt: skip
        document = out / "triage.json"
        return Step(f"{name} triage", command, 90, document, needs=(f"{name} export",))

    def benchmark(self, name: str) -> Step:
        document = self._document(f"{name} benchmark")
        command = _program(
            "benchmark", "--engine", str(self._engine(name)), "--provider", self._subject.provider,
            *self._subject.benchmark, "--json", str(document),
        )  # fmt: skip
        return Step(f"{name} benchmark", command, 240, document, needs=(f"{name} self-test",))

    def torch(self, python: str) -> Step:
        document = self._document("torch")
        script = (
            python, str(HERE / "torch_baseline.py"), "--shape", self._subject.shape,
            "--device", self._subject.provider, "--json", str(document),
        )  # fmt: skip
        return Step("torch", script, 150, document)

    def tensorrt(self) -> tuple[Step, Step, Step]:
        engine = self._engine("tensorrt")
        export = _program("export", str(CHECKPOINT), "--target", "tensorrt", "-o", str(engine))
        triage = _program(
            "triage", str(SCAN), "--engine", str(engine), "--provider", "tensorrt", "--no-cache",
            "--no-report", "--out", str(self._state / "tensorrt-triage"),
        )  # fmt: skip
        document = self._state / "tensorrt-triage/triage.json"
        exported, built = ("tensorrt export",), ("tensorrt build",)
        return (
            Step("tensorrt export", export, 60, makes=engine),
            Step(
                "tensorrt build", _program("build", str(engine)), 90, needs=exported, may_fail=True
            ),
            Step("tensorrt triage", triage, 60, document, needs=built, may_fail=True),
        )

    def refusal(self) -> Step:
        """A GPU that is not there is refused in one sentence."""
        command = _program(
            "triage", str(SCAN), "--engine", str(self._engine("small")), "--provider", "cuda",
            "--out", str(self._state / "refused"),
        )  # fmt: skip
        return Step("cuda refusal", command, 60, needs=("small export",), may_fail=True)

    def _engine(self, name: str) -> Path:
        return self._state / "engines" / name.replace(" ", "-")

    def _document(self, name: str) -> Path:
        return self._state / f"{name.replace(' ', '-')}.json"


def _program(*arguments: str) -> tuple[str, ...]:
    return (str(Path(sys.executable).parent / "edge-medgemma"), *arguments)
