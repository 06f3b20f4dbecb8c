"""ONNX Runtime on an NVIDIA GPU, and CUDA itself."""
