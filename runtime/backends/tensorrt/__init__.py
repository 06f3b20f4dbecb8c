"""TensorRT and TensorRT-RTX: plans, and what builds and runs them."""
