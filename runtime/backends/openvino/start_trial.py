"""The trial of OpenVINO's start and of one node, in a process that it may kill."""

import numpy as np

from edge_medgemma.runtime.backends.probe import PROBE
from edge_medgemma.runtime.trial import finish, limit_child, step


def main() -> None:
    """Compute the probe's node; the result is version and processor in OpenVINO's words."""
    limit_child()
    step("openvino", "its start")
    import openvino

    core = openvino.Core()
    step("openvino", "one product")
    result = core.compile_model(core.read_model(PROBE), "CPU")([np.full(4, 3, np.float32)])[0]
    version = openvino.__version__.split("-")[0]
    name = core.get_property("CPU", "FULL_DEVICE_NAME")
    if (np.asarray(result) == 9).all():
        finish(None, f"OpenVINO {version} on {name}")
    else:
        finish(f"computes 3 * 3 = {np.asarray(result)[0]}")


if __name__ == "__main__":
    main()
