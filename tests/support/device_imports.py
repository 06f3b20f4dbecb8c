"""A pytest plugin (`-p support.device_imports`) that hides what a device does not install."""

import sys
from collections.abc import Collection, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

EXPORT_MODULES = ("huggingface_hub", "ml_dtypes", "onnx", "onnx_ir", "peft")
REFERENCE_MODULES = ("torch", "transformers")


class HidingFinder(MetaPathFinder):
    """On `sys.meta_path`, says of every module in `hidden` that it is not installed."""

    def __init__(self, hidden: Collection[str]) -> None:
        self.hidden = frozenset(hidden)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if name in self.hidden:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def pytest_configure() -> None:
    sys.meta_path.insert(0, HidingFinder(EXPORT_MODULES + REFERENCE_MODULES))
