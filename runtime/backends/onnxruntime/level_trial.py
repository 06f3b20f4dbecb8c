"""The trial of a level of kernels, in a process that it may kill: `kernels.level` starts it."""

from edge_medgemma.runtime.backends.onnxruntime.custom_ops import operators_fault
from edge_medgemma.runtime.kernels.level import NO_LEVEL, ONNXRUNTIME, cpu_kernels
from edge_medgemma.runtime.kernels.vision_numbers import vision_fault
from edge_medgemma.runtime.trial import finish, limit_child, step


def main() -> None:
    """Run every kernel of the level of the first argument on small numbers, beside another's."""
    (level,) = limit_child()
    library = None
    if level != NO_LEVEL:
        if level not in cpu_kernels.claimed_levels():  # which also asks Linux for the tiles of AMX
            finish("is not claimed in a child process")
            return
        cpu_kernels.use_level(level)
        library = cpu_kernels.__file__
    step(ONNXRUNTIME, "its start")
    import onnxruntime  # noqa: F401

    fault = operators_fault(library)
    if fault is None and library is not None:
        fault = vision_fault()
    finish(fault)


if __name__ == "__main__":
    main()
