"""How a checkpoint's processor makes pixel values of an image: preprocessor_config.json and its kin.

Files, their precedence and defaults are those of `Gemma3Processor` and `Gemma3ImageProcessorPil` of
transformers (5.24). What the runtime computes exactly is kept; all else is refused by name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.runtime.errors import CheckpointError

PROCESSOR_NAME = "processor_config.json"
IMAGE_PROCESSOR_NAME = "preprocessor_config.json"
PROCESSOR_CLASS = "Gemma3Processor"
IMAGE_PROCESSOR_CLASSES = ("Gemma3ImageProcessor", "Gemma3ImageProcessorFast")
CHANNELS = 3
LARGEST = 1e4
"""No mean, deviation or factor of 8-bit pixels comes near it."""

_MUST_BE_ON = ("do_resize",)
_MUST_BE_OFF = ("do_pan_and_scan", "do_center_crop", "do_pad")
"""Absent or null is off. Gemma3Processor switches pan-and-scan off, whatever its file says, and its
image processor crops and pads nothing: who wrote that one is on wanted another prompt."""


@dataclass(frozen=True, slots=True)
class PixelSettings:
    """What the processor does to an image of three channels of 8 bits."""

    image_size: int
    """Rows and columns that it resizes to, without keeping the aspect"""
    mean: tuple[float, ...]
    """Of each channel, of rescaled values"""
    std: tuple[float, ...]
    """The same"""
    rescale_factor: float
    """What pixels are multiplied by before mean and deviation apply"""
    resample: int
    """Pillow's number of the filter"""


def processor_config(folder: Path) -> dict[str, Any]:
    """The image processor's settings, with the processor's own `image_seq_length` where it has one.

    They lie in preprocessor_config.json, or nested in processor_config.json, which then wins.

    Raises:
        CheckpointError: no such file, or the processor is of another class.
    """
    processor = read_json(folder / PROCESSOR_NAME, {})
    settings = processor.get("image_processor")
    if settings is None:
        settings = read_json(folder / IMAGE_PROCESSOR_NAME)
    if not isinstance(settings, dict):
        raise _unexpected("image_processor", settings, "an object", PROCESSOR_NAME)
    _require_classes(folder, processor, settings)
    length = processor.get("image_seq_length", settings.get("image_seq_length"))
    return {**settings, "image_seq_length": length}


def pixel_settings(processor: Mapping[str, Any]) -> PixelSettings:
    """The settings in the content of preprocessor_config.json.

    Raises:
        CheckpointError: one of them that the runtime does not compute as transformers does.
    """
    for name in _MUST_BE_ON:
        if not _switch(processor, name, True):
            raise _unexpected(name, False, "true: scans come in every size")
    for name in _MUST_BE_OFF:
        if processor.get(name) is not None and _switch(processor, name, False):
            raise _unexpected(name, True, "false: the engine shows a slice as one whole image")
    mean, std = (0.0,) * CHANNELS, (1.0,) * CHANNELS
    if _switch(processor, "do_normalize", True):
        mean = _channels(processor, "image_mean")
        std = _channels(processor, "image_std")
        if min(std) <= 0:
            raise _unexpected("image_std", processor["image_std"], "numbers above 0")
    factor = 1.0
    if _switch(processor, "do_rescale", True):
        factor = _number(processor.get("rescale_factor", 1 / 255), "rescale_factor")
        if factor <= 0:
            raise _unexpected("rescale_factor", factor, "a number above 0")
    resample = processor.get("resample", 2)
    if type(resample) is not int or not 0 <= resample <= 5:
        raise _unexpected("resample", resample, "Pillow's number of a filter, 0 to 5")
    return PixelSettings(_image_size(processor), mean, std, factor, resample)


def _require_classes(
    folder: Path, processor: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Refuse a processor or image processor of another class: it would do something else."""
    is_own_file = (folder / IMAGE_PROCESSOR_NAME).exists()
    tokenizer_config = read_json(folder / "tokenizer_config.json", {})
    for source, file in (
        (processor, PROCESSOR_NAME),
        (settings if is_own_file else {}, IMAGE_PROCESSOR_NAME),
        (tokenizer_config, "tokenizer_config.json"),
    ):
        name = source.get("processor_class")
        if name not in (None, PROCESSOR_CLASS):
            raise _unexpected("processor_class", name, f"'{PROCESSOR_CLASS}'", file)
        if name is not None:
            break
    kind = settings.get("image_processor_type")
    if kind not in (None, *IMAGE_PROCESSOR_CLASSES):
        raise _unexpected("image_processor_type", kind, f"'{IMAGE_PROCESSOR_CLASSES[0]}'")
    if kind is None and settings.get("feature_extractor_type") is not None:
        raise _unexpected("feature_extractor_type", settings["feature_extractor_type"], "none")


def _image_size(processor: Mapping[str, Any]) -> int:
    """Side of the square that images become; another rule would keep an aspect or a border."""
    size = processor.get("size", {"height": 224, "width": 224})
    sides: list[object] = []
    if isinstance(size, dict) and set(size) == {"height", "width"}:
        sides = [size["height"], size["width"]]
    elif isinstance(size, list):
        sides = size
    elif _switch(processor, "default_to_square", True):
        sides = [size, size]
    height, width = sides if len(sides) == 2 else (None, None)
    if type(height) is not int or height != width or height < 1:
        raise _unexpected("size", size, "one square size, {'height': N, 'width': N}")
    return height


def _switch(processor: Mapping[str, Any], name: str, default: bool) -> bool:
    value = processor.get(name, default)
    if not isinstance(value, bool):
        raise _unexpected(name, value, "true or false")
    return value


def _channels(processor: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """A number for each channel, or one for all."""
    value = processor.get(name, [0.5] * CHANNELS)
    values = value if isinstance(value, list) else [value] * CHANNELS
    if len(values) != CHANNELS:
        raise _unexpected(name, value, f"a number for each of {CHANNELS} channels")
    return tuple(_number(one, name) for one in values)


def _number(value: object, name: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or abs(value) > LARGEST:  # type: ignore[arg-type]
        raise _unexpected(name, value, f"a number within -{LARGEST:g} .. {LARGEST:g}")
    return float(value)  # type: ignore[arg-type]


def _unexpected(
    name: str, found: object, expected: str, file: str = IMAGE_PROCESSOR_NAME
) -> CheckpointError:
    words = repr(found)
    words = words if len(words) <= 80 else f"{words[:80]}..."
    return CheckpointError(f"{file} says {name} {words}; expected {expected}")
