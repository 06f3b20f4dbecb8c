"""The float model run over the slices, a layer at a time."""
