"""calibration.json: what a calibration saw and chose; the arrays lie in the folder beside it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.domain import CalibrationStudy
from edge_medgemma.calibration.resume_store import load_group
from edge_medgemma.calibration.search.gram import Gram
from edge_medgemma.calibration.search.ranges import LEVELS
from edge_medgemma.calibration.slices import CalibrationSlice
from edge_medgemma.runtime.documents import Finite, Sha256, Size, dump_sealed, parse_sealed
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.manifest import file_sha256
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

SCHEMA_VERSION = 2

FP16_PEAK = 16384.0
"""Largest magnitude wanted in a float16 tensor: a quarter of its range, for slices yet unseen."""


@dataclass(frozen=True, slots=True)
class SliceSummary:
    """The slices of a calibration, without saying whose."""

    scans: Size
    series: Size
    calibrated: Size
    held_out: Size
    seed: Size
    sha256: Sha256
    """Hash of every pixel in order"""
    strata: Mapping[str, Size]
    """Slices by modality, window and position"""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InputRange:
    """Quantisation of the input of one linear layer of the vision tower."""

    limit: Finite
    """Range of the smoothed input; its step is limit / 127"""
    method: str
    exponent: Finite
    """Exponent of the smoothing; 0 for none"""
    error: Finite
    """Squared error of the product over its squared norm, on sampled rows"""
    plain_error: Finite
    """The same with min-max and no smoothing"""


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """Contents of calibration.json."""

    schema_version: int
    program_version: str
    checkpoint_sha256: Sha256
    checkpoint_name: str
    slices: SliceSummary
    vision: Mapping[str, InputRange]
    """Ranges by linear layer"""
    peaks: Mapping[str, Finite]
    """Largest magnitude of every value of both graphs, by name"""
    files: Mapping[str, Sha256]
    """SHA-256 of each file of the folder beside it, by name"""


@dataclass(frozen=True, slots=True)
class Calibration(CalibrationRecord):
    """A finished calibration: its record, and the folder that holds its arrays."""

    folder: Path

    @property
    def residual_peak(self) -> float:
        """Largest magnitude in the decoder's residual stream."""
        names = (".attention_residual", ".mlp_residual", "embeddings")
        values = [v for k, v in self.peaks.items() if k.startswith("text.") and k.endswith(names)]
        return max(values, default=0.0)

    @property
    def residual_scale(self) -> float:
        """The power of two that brings the residual stream below FP16_PEAK; at least 1."""
        ratio = self.residual_peak / FP16_PEAK
        return 1.0 if ratio <= 1 else 2.0 ** math.ceil(math.log2(ratio))

    def smoothing(self, linear: str) -> NDArray[np.float32]:
        """[K]: divisor of the input of a vision layer."""
        arrays, _ = self._group(f"vision.{_layer_of(linear)}")
        scale: NDArray[np.float32] = arrays[f"scale:{linear}"]
        return scale

    def gram(self, linear: str) -> Gram:
        """Second moments of the input of a linear layer of the decoder."""
        arrays, _ = self._group(f"decoder.{_layer_of(linear)}")
        keys = ("correlation", "diagonal", "rows")
        return Gram.unpacked({key: arrays[f"{key}:{linear}"] for key in keys})

    def cache_scales(self, layer: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Steps of an int8 cache of keys and values, [kv_heads * head_dim] each.

        GroupQueryAttention takes them as `k_scale` and `v_scale` with `k_quant_type` PER_CHANNEL.
        Keys are those after rotary embedding, as the cache holds them.
        """
        arrays, _ = self._group(f"decoder.{layer}")
        keys, values = (arrays[f"present_{kind}.{layer}"] for kind in ("key", "value"))
        step = np.float32(1 / LEVELS)
        return (keys.reshape(-1) * step).astype(np.float32), (values.reshape(-1) * step).astype(
            np.float32
        )

    def reference(self, part: str, layer: int) -> NDArray[np.float32]:
        """[held out, rows, width]: rows of the float engine's residual stream after a layer."""
        arrays, _ = self._group(f"{part}.{layer}")
        rows: NDArray[np.float32] = arrays["reference"]
        return rows

    def answers(self) -> NDArray[np.float32]:
        """[answers, vocabulary]: the float engine's logits on the held-out prompts."""
        arrays, _ = self._group("answers")
        logits: NDArray[np.float32] = arrays["logits"]
        return logits

    def features(self) -> NDArray[np.float32]:
        """[held out, tokens_per_image, hidden]: the float engine's image features."""
        arrays, _ = self._group("features")
        features: NDArray[np.float32] = arrays["held_out"]
        return features

    def held_out(self) -> tuple[CalibrationSlice, ...]:
        """The slices that calibration did not look at."""
        arrays, note = self._group("held_out")
        return tuple(
            CalibrationSlice(
                arrays[str(i)], series, Modality(modality), BodyPart(body_part), preset, band
            )
            for i, (series, modality, body_part, preset, band) in enumerate(note["slices"])
        )

    def studies(self) -> tuple[CalibrationStudy, ...]:
        """Every slice, held out or not, by study, as the float engine sees it."""
        arrays, note = self._group("domain")
        return tuple(
            CalibrationStudy(Modality(modality), BodyPart(body_part), arrays[str(i)], scanner)
            for i, (modality, body_part, scanner) in enumerate(note["studies"])
        )

    def _group(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return load_group(self.folder / f"{name}.npz")


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write calibration.json, whole or not at all."""
    record = CalibrationRecord(*(getattr(calibration, f.name) for f in fields(CalibrationRecord)))
    write_atomically(path, dump_sealed(record).encode())


def data_folder(path: Path) -> Path:
    """The folder beside calibration.json."""
    return path.with_name(f"{path.stem}.data")


def load_calibration(path: Path) -> Calibration:
    """Read calibration.json and check the folder beside it.

    Raises:
        EngineError: missing, not a calibration, of another version, or its arrays are altered.
    """
    try:
        record = parse_sealed(path.read_bytes(), CalibrationRecord)
    except FileNotFoundError:
        raise EngineError(
            f"no calibration at '{path}'; make one with 'edge-medgemma calibrate'"
        ) from None
    except (ValueError, RecursionError) as error:
        raise EngineError(
            f"'{path}' is altered or not a calibration ({error}); calibrate again"
        ) from None
    if record.schema_version != SCHEMA_VERSION:
        raise EngineError(
            f"'{path}' has schema version {record.schema_version}, this program reads "
            f"{SCHEMA_VERSION}; calibrate again"
        )
    folder = data_folder(path)
    for name, sha256 in record.files.items():
        file = folder / name
        if not file.is_file() or file_sha256(file) != sha256:
            raise EngineError(
                f"'{file}' is missing or altered; keep '{folder.name}' beside '{path.name}', or "
                "calibrate again"
            )
    return Calibration(**{f.name: getattr(record, f.name) for f in fields(record)}, folder=folder)


def _layer_of(linear: str) -> int:
    return int(linear.split("layers.")[1].split(".")[0])
