"""OpenVINO sees what onnxruntime sees, or is not used."""

import json
import sys

import numpy as np
import pytest

from edge_medgemma.runtime.backends import select as providers
from edge_medgemma.runtime.backends.onnxruntime.session import OrtVision, saturates_int8_products
from edge_medgemma.runtime.backends.openvino.vision import OpenVinoVision
from edge_medgemma.runtime.backends.probe import probe_all
from edge_medgemma.runtime.backends.select import Provider, Providers, open_vision
from edge_medgemma.runtime.backends.self_test.test_image import synthetic_pixel_values
from edge_medgemma.runtime.backends.self_test.vision_agreement import (
    LOWEST_COSINE,
    Verdict,
    agreement,
    lowest_cosine,
    open_tested,
)
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import DependencyError, EngineError, ProviderError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.trial import Outcome

pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")


@pytest.mark.parametrize(
    ("name", "lowest"), [("phantom", 0.9999), ("tiny", 0.9999), ("int8", 0.9995)]
)
def test_features_are_those_of_onnxruntime(name, lowest, tiny_engine_directory, int8_engine):
    if name == "int8" and saturates_int8_products():
        pytest.skip("OpenVINO's int8 products saturate on this processor: its self-test refuses it")
    places = {"phantom": BUILTIN_ENGINE, "tiny": tiny_engine_directory, "int8": int8_engine}
    directory = places[name]
    first = synthetic_pixel_values(load_manifest(directory).vision)
    pixels = np.concatenate([first, -first, first[:, ::-1]])
    expected = OrtVision(directory, 1).run(pixels)
    features = OpenVinoVision(directory, 1).run(pixels)
    assert features.shape == expected.shape
    difference = np.abs(features - expected)
    cosine = lowest_cosine(features, expected)
    assert cosine > lowest, f"max {difference.max():.2e}, mean {difference.mean():.2e}, {cosine=}"
    assert lowest_cosine(features[::-1], expected) < lowest, "the pictures should differ"


def test_threads_are_honoured(tiny_engine_directory):
    model = OpenVinoVision(tiny_engine_directory, 1)
    compiled = model._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_a_graph_that_does_not_load_is_one_line(tmp_path):
    (tmp_path / "vision.onnx").write_bytes(b"not a graph")
    with pytest.raises(ProviderError, match=r"OpenVINO does not load '.*vision\.onnx'") as caught:
        OpenVinoVision(tmp_path, None)
    assert "\n" not in str(caught.value)


def test_a_verdict_is_kept_and_saves_the_reference(tiny_engine_directory, stamps):
    manifest = load_manifest(tiny_engine_directory)

    def candidate():
        return OpenVinoVision(tiny_engine_directory, 1)

    open_compared(manifest, "identity", candidate, lambda: OrtVision(tiny_engine_directory, 1))
    (stamp,) = stamps.iterdir()
    assert Verdict(json.loads(stamp.read_text())["numbers"]["cosine"]).passed
    open_compared(manifest, "identity", candidate, lambda: pytest.fail("tested again"))


def test_other_eyes_are_refused_with_numbers(tiny_engine_directory, altered_engine, stamps):
    manifest = load_manifest(tiny_engine_directory)
    wanted = rf"cosine 0\.\d{{4}}, at least {LOWEST_COSINE}"
    with pytest.raises(ProviderError, match=wanted):
        open_compared(
            manifest,
            "identity",
            lambda: OpenVinoVision(altered_engine, 1),
            lambda: OrtVision(tiny_engine_directory, 1),
        )
    with pytest.raises(ProviderError, match=wanted):
        open_compared(
            manifest,
            "identity",
            lambda: pytest.fail("opened although it had failed"),
            lambda: pytest.fail("tested again"),
        )


@pytest.mark.parametrize("change", ["library", "engine", "damaged", "renamed"])
def test_a_stale_stamp_is_not_believed(
    change, tiny_engine_directory, int8_engine, altered_engine, stamps
):
    """A pass for one library, engine or machine says nothing of another."""
    manifest, identity = load_manifest(tiny_engine_directory), "library 1"
    open_compared(
        manifest,
        identity,
        lambda: OpenVinoVision(tiny_engine_directory, 1),
        lambda: OrtVision(tiny_engine_directory, 1),
    )
    (stamp,) = stamps.iterdir()
    passed = stamp.read_bytes()
    if change == "damaged":
        stamp.write_bytes(passed[:-3])
    if change == "engine":
        manifest = load_manifest(int8_engine)
    if change in ("library", "renamed"):
        identity = "library 2"
    if change == "renamed":
        with pytest.raises(ProviderError):
            open_altered(manifest, identity, altered_engine, tiny_engine_directory)
        (other,) = set(stamps.iterdir()) - {stamp}
        other.write_bytes(passed)
    with pytest.raises(ProviderError, match="features differ"):
        open_altered(manifest, identity, altered_engine, tiny_engine_directory)


def open_compared(manifest, identity, open_candidate, open_reference):
    """`open_tested` whose trial is here, not in a child."""

    def tried() -> Outcome:
        cosine = agreement(manifest, "openvino", open_candidate, open_reference)
        return Outcome(None, "onnxruntime", True, repr(cosine))

    return open_tested(manifest, identity, open_candidate, tried)


def open_altered(manifest, identity, altered, original):
    open_compared(
        manifest,
        identity,
        lambda: OpenVinoVision(altered, 1),
        lambda: OrtVision(original, 1),
    )


def test_no_number_is_no_pass_and_is_not_kept(tiny_engine_directory, stamps):
    class Broken:
        def run(self, pixel_values):
            return np.full((1, 16, 96), np.nan, np.float32)

    manifest = load_manifest(tiny_engine_directory)
    with pytest.raises(ProviderError, match="cosine nan"):
        open_compared(manifest, "i", Broken, lambda: OrtVision(tiny_engine_directory, 1))
    assert not stamps.exists()


def test_auto_takes_openvino_for_a_large_tower_only(tiny_engine_directory, stamps, monkeypatch):
    manifest = load_manifest(tiny_engine_directory)
    small = open_vision(tiny_engine_directory, manifest, Provider.AUTO, 1)
    assert small.provider is Provider.CPU
    assert [one.provider for one in small.fallbacks] == [Provider.NATIVE, Provider.OPENVINO]
    assert all("gains less" in one.reason for one in small.fallbacks)
    monkeypatch.setitem(providers.FASTER_VISION, Provider.OPENVINO, 0)
    large = open_vision(tiny_engine_directory, manifest, Provider.AUTO, 1)
    assert large.provider is Provider.OPENVINO
    assert isinstance(large.model, OpenVinoVision)


def test_auto_goes_on_without_it_and_says_why(
    tiny_engine_directory, altered_engine, stamps, monkeypatch, caplog
):
    monkeypatch.setitem(providers.FASTER_VISION, Provider.OPENVINO, 0)
    manifest = load_manifest(tiny_engine_directory)

    def compared_with_another_graph(*_, **__):
        altered = OpenVinoVision(altered_engine, 1)
        reference = OrtVision(tiny_engine_directory, 1)
        cosine = agreement(manifest, "openvino", lambda: altered, lambda: reference)
        return Outcome(None, "onnxruntime", True, repr(cosine))

    monkeypatch.setattr(providers, "run_trial", compared_with_another_graph)
    opened = open_vision(tiny_engine_directory, manifest, Provider.AUTO, 1)
    assert opened.provider is Provider.CPU
    assert "features differ" in opened.fallbacks[-1].reason
    assert "vision runs on onnxruntime" in caplog.text
    with pytest.raises(ProviderError, match="features differ"):
        open_vision(tiny_engine_directory, manifest, Provider.OPENVINO, 1)


DEADLY = """
import os, signal
class Core:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGILL)
"""


def test_a_library_that_kills_its_process_is_not_loaded(
    tiny_engine_directory, stamps, tmp_path, monkeypatch
):
    """In a real child, whose OpenVINO is one that dies; this process has the real one."""
    (tmp_path / "openvino.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(providers.FASTER_VISION, Provider.OPENVINO, 0)
    monkeypatch.setattr(OpenVinoVision, "__init__", lambda *_: pytest.fail("loaded here"))
    manifest = load_manifest(tiny_engine_directory)
    (found,) = [one for one in probe_all() if one.name == "openvino"]
    assert not found.works and "OpenVINO dies of SIGILL in its start" in found.detail
    words = "it dies of SIGILL in the vision tower on this processor; use --provider vision=cpu"
    opened = open_vision(tiny_engine_directory, manifest, Provider.AUTO, 1)
    assert (opened.provider, opened.fallbacks[-1].reason) == (Provider.CPU, words)
    monkeypatch.setattr(providers, "run_trial", lambda *_, **__: pytest.fail("tried again"))
    assert (
        open_vision(tiny_engine_directory, manifest, Provider.AUTO, 1).fallbacks[-1].reason == words
    )


@pytest.mark.parametrize(
    ("outcome", "error", "words", "is_kept"),
    [
        (
            Outcome("dies of SIGILL in x", "openvino", True),
            ProviderError,
            "it dies of SIGILL",
            True,
        ),
        (Outcome("fails: could not execute a primitive", "", True), ProviderError, "a prim", True),
        (Outcome("dies of SIGKILL in x", "openvino", False), ProviderError, "SIGKILL", False),
        (Outcome("dies of SIGILL in x", "onnxruntime", True), EngineError, "another version", True),
    ],
)
def test_every_end_of_a_trial(outcome, error, words, is_kept, tiny_engine_directory, stamps):
    manifest = load_manifest(tiny_engine_directory)
    outcomes = [outcome, Outcome(None, "onnxruntime", True, "1.0")]
    with pytest.raises(error, match=words):
        open_tested(manifest, "i", lambda: pytest.fail("opened"), lambda: outcomes.pop(0))
    opened = OpenVinoVision(tiny_engine_directory, 1)
    if is_kept:
        with pytest.raises(error, match=words):
            open_tested(manifest, "i", lambda: opened, lambda: pytest.fail("tried again"))
    else:
        assert open_tested(manifest, "i", lambda: opened, lambda: outcomes.pop(0)) is opened


def test_a_failure_at_a_slice_leaves_the_rest_to_onnxruntime(
    tiny_engine_directory, stamps, monkeypatch, caplog
):
    monkeypatch.setitem(providers.FASTER_VISION, Provider.OPENVINO, 0)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    run, slices = OpenVinoVision.run, []

    def failing(model, pixel_values):
        slices.append(1)
        if len(slices) > 1:
            raise ProviderError("OpenVINO fails at a slice (could not execute a primitive)")
        return run(model, pixel_values)

    with Engine.open(tiny_engine_directory, threads=1) as engine:
        expected = engine.encode_images(pixels)
        assert engine.vision_provider is Provider.OPENVINO
        monkeypatch.setattr(OpenVinoVision, "run", failing)
        features = engine.encode_images(pixels)
        assert engine.vision_provider is Provider.CPU and len(slices) == 2
        assert lowest_cosine(features, expected) > LOWEST_COSINE
        assert "vision goes on with onnxruntime, not openvino" in caplog.text
    named = Providers(vision=Provider.OPENVINO)
    with (
        Engine.open(tiny_engine_directory, threads=1, providers=named) as engine,
        pytest.raises(ProviderError, match="could not execute a primitive"),
    ):
        engine.encode_images(pixels)


def test_a_missing_library_is_an_error_only_where_it_was_asked_for(
    tiny_engine_directory, monkeypatch
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(providers.FASTER_VISION, Provider.OPENVINO, 0)
    manifest = load_manifest(tiny_engine_directory)
    opened = open_vision(tiny_engine_directory, manifest, Provider.AUTO, 1)
    assert opened.provider is Provider.CPU
    assert ".[cpu,openvino]" in opened.fallbacks[-1].reason
    with pytest.raises(DependencyError, match=r"\.\[cpu,openvino\]"):
        open_vision(tiny_engine_directory, manifest, Provider.OPENVINO, 1)
