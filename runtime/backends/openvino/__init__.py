"""OpenVINO: the vision tower on the CPU."""
