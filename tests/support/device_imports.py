"""A pytest plugin (`-p support.device_imports`) that hides what a device does not install."""

import sys

HIDDEN = (
    "huggingface_hub",
    "ml_dtypes",
    "onnx",
    "onnx_ir",
    "peft",
    "safetensors",
    "torch",
    "transformers",
)
sys.modules.update(dict.fromkeys(HIDDEN))  # None: importing one raises ModuleNotFoundError
