"""How a checkpoint's processor makes pixel values of an image: preprocessor_config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_medgemma.export.checkpoint.checkpoint import read_json


@dataclass(frozen=True, slots=True)
class PixelSettings:
    """What the processor does to an image."""

    sides: frozenset[int]
    """Height and width that it resizes to, empty where it names none"""
    mean: tuple[float, ...]
    """Of each channel, of values within 0 .. 1"""
    std: tuple[float, ...]
    """The same"""


def processor_config(folder: Path) -> dict[str, Any]:
    """preprocessor_config.json, which transformers 5 also writes inside processor_config.json."""
    nested = read_json(folder / "processor_config.json", {}).get("image_processor") or {}
    return read_json(folder / "preprocessor_config.json", nested)


def pixel_settings(processor: Mapping[str, Any]) -> PixelSettings:
    """The settings in `processor`, the content of preprocessor_config.json, empty when absent."""
    size = processor.get("size") or {}
    return PixelSettings(
        sides=frozenset(int(size[key]) for key in ("height", "width") if key in size),
        mean=tuple(float(value) for value in processor.get("image_mean", (0.5, 0.5, 0.5))),
        std=tuple(float(value) for value in processor.get("image_std", (0.5, 0.5, 0.5))),
    )
