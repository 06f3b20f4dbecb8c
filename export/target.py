"""The device that an engine is for: how its graphs are lowered and what they compute in."""

from dataclasses import dataclass

from edge_medgemma.runtime.errors import EngineError

TARGETS = ("cpu", "cuda", "tensorrt")

SIXTEEN_BIT = ("fp16", "bf16")


@dataclass(frozen=True, slots=True)
class Target:
    """A dialect and the type of its activations."""

    dialect: str
    """`ort` or `trt`"""
    activations: str
    """`fp32`, `fp16` or `bf16`; float32 of the `trt` dialect runs in onnxruntime alone"""

    on_cpu: bool = False
    """16 bits for a CPU all the same, to save disk"""

    @property
    def runs_on_cuda(self) -> bool:
        """Whether it is for onnxruntime on CUDA."""
        return self.dialect == "ort" and self.activations in SIXTEEN_BIT and not self.on_cpu


CPU = Target("ort", "fp32")


def choose_target(name: str, precision: str, activations: str | None) -> Target:
    """The target that a user names.

    Args:
        name: one of TARGETS
        precision: of the decoder's weights; 16-bit weights fix the activations
        activations: of int8 and int4 engines; None chooses bf16 for a GPU

    Raises:
        EngineError: the target computes no such activations.
    """
    if name not in TARGETS:
        raise EngineError(f"unknown target '{name}'; expected one of {', '.join(TARGETS)}")
    fixed = precision if precision in ("fp32", *SIXTEEN_BIT) else None
    if activations is not None and fixed not in (None, activations):
        raise EngineError(
            f"--precision {precision} computes in {fixed}, not in {activations}; give --activations "
            "with --precision int8 or int4"
        )
    chosen = fixed or activations or ("fp32" if name == "cpu" else "bf16")
    if name == "cpu" and (chosen == "bf16" or (chosen == "fp16" and fixed is None)):
        raise EngineError(
            f"a CPU computes in fp32, {chosen} brings it nothing; leave --activations out or choose "
            "another --target"
        )
    if name != "cpu" and chosen == "fp32":
        raise EngineError(
            f"{name} has no float32 attention; choose --precision bf16, fp16, int8 or int4"
        )
    on_cpu = name == "cpu" and chosen in SIXTEEN_BIT
    return Target("trt" if name == "tensorrt" else "ort", chosen, on_cpu)
