"""The tower of this package's kernels sees what onnxruntime sees, or is not used."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.backends import select
from edge_medgemma.runtime.backends.native.vision import NativeVision, native_identity
from edge_medgemma.runtime.backends.onnxruntime.session import OrtVision
from edge_medgemma.runtime.backends.select import Provider, open_vision
from edge_medgemma.runtime.backends.self_test.test_image import synthetic_pixel_values
from edge_medgemma.runtime.backends.self_test.vision_agreement import lowest_cosine
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import EngineError, ProviderError
from edge_medgemma.runtime.kernels.level import cpu_kernels, kernel_level
from edge_medgemma.runtime.manifest import load_manifest

pytestmark = pytest.mark.skipif(kernel_level() is None, reason="no kernels here")

LEVELS = cpu_kernels.claimed_levels() if cpu_kernels else []


@pytest.fixture
def level(request):
    usual = kernel_level()
    cpu_kernels.use_level(request.param)
    yield request.param
    cpu_kernels.use_level(usual)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(
    ("name", "lowest"), [("int8", 0.9995), ("tiny", 0.99999), ("demo", 0.9999)]
)
def test_features_are_those_of_onnxruntime(level, name, lowest, int8_engine, tiny_engine_directory):
    """Of an int8 tower and of two in float32."""
    places = {"int8": int8_engine, "tiny": tiny_engine_directory, "demo": BUILTIN_ENGINE}
    directory = places[name]
    manifest = load_manifest(directory)
    first = synthetic_pixel_values(manifest.vision)
    pixels = np.concatenate([first, -first, first[:, ::-1]])
    expected = OrtVision(directory, 1).run(pixels)
    model = NativeVision(directory, manifest, 2)
    features = model.run(pixels)
    assert features.shape == expected.shape
    assert lowest_cosine(features, expected) > lowest, np.abs(features - expected).max()
    assert lowest_cosine(features[::-1], expected) < lowest, "the pictures should differ"
    assert {"attention", "qkv", "fc2"} <= model.seconds.keys()


def test_threads_compute_the_same_bits(int8_engine):
    manifest = load_manifest(int8_engine)
    pixels = synthetic_pixel_values(manifest.vision)
    one, three = (NativeVision(int8_engine, manifest, threads).run(pixels) for threads in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_callers_at_once_each_get_their_own(int8_engine):
    manifest = load_manifest(int8_engine)
    model, first = NativeVision(int8_engine, manifest, 2), synthetic_pixel_values(manifest.vision)
    slices = [first * factor for factor in (1, -1, 0.5, 0)] * 8
    expected = [model.run(one) for one in slices]
    with ThreadPoolExecutor(4) as pool:
        for given, alone in zip(pool.map(model.run, slices), expected, strict=True):
            np.testing.assert_array_equal(given, alone)


FORK = """
import os, sys
from pathlib import Path
from edge_medgemma.runtime.backends.native.vision import NativeVision
from edge_medgemma.runtime.backends.self_test.test_image import synthetic_pixel_values
from edge_medgemma.runtime.manifest import load_manifest
engine = Path(sys.argv[1])
manifest = load_manifest(engine)
model, pixels = NativeVision(engine, manifest, 3), synthetic_pixel_values(manifest.vision)
expected = model.run(pixels)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
is_same = (model.run(pixels) == expected).all()
del model
os._exit(0 if is_same else 3)
"""


def test_a_fork_computes_without_the_threads_of_its_parent(int8_engine):
    command = [sys.executable, "-c", FORK, str(int8_engine)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_auto_tests_it_and_takes_it(int8_engine, stamps, monkeypatch):
    monkeypatch.setitem(select.FASTER_VISION, Provider.NATIVE, 0)
    manifest = load_manifest(int8_engine)
    opened = open_vision(int8_engine, manifest, Provider.AUTO, 1)
    assert (opened.provider, opened.fallbacks) == (Provider.NATIVE, ())
    assert isinstance(opened.model, NativeVision)
    assert len(list(stamps.iterdir())) == 1
    assert f"native {kernel_level()}" in native_identity()


def test_another_graph_is_refused_in_one_line(altered_engine):
    with pytest.raises(ProviderError, match="use --provider vision=cpu") as caught:
        NativeVision(altered_engine, load_manifest(altered_engine), 1)
    assert "\n" not in str(caught.value)


def _cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("file", "share"), [("vision.onnx", 0.5), ("vision.onnx", 0.0), ("vision.data", 0.5)]
)
def test_a_damaged_file_is_one_line(file, share, int8_engine, tmp_path):
    directory = Path(shutil.copytree(int8_engine, tmp_path / "engine"))
    _cut(directory / file, share)
    with pytest.raises(EngineError, match="export the engine again") as caught:
        NativeVision(directory, load_manifest(directory), 1)
    assert "\n" not in str(caught.value)


def test_weights_of_another_file_are_not_read(int8_engine, tmp_path):
    directory = Path(shutil.copytree(int8_engine, tmp_path / "engine"))
    path = directory / "vision.onnx"
    path.write_bytes(path.read_bytes().replace(b"vision.data", b"vision.dato"))
    with pytest.raises(EngineError, match=r"vision\.dato' does not read"):
        NativeVision(directory, load_manifest(directory), 1)
