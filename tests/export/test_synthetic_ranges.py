"""An int8 vision tower for random weights, its ranges from one drawn picture."""

import numpy as np
import pytest
from click.testing import CliRunner

from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
from edge_medgemma.export.commands.export import command
from edge_medgemma.export.synthetic_ranges import synthetic_vision_ranges
from edge_medgemma.runtime.backends.onnxruntime.session import OrtVision
from edge_medgemma.runtime.backends.self_test.test_image import synthetic_pixel_values
from edge_medgemma.runtime.backends.self_test.vision_agreement import lowest_cosine
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.manifest import load_manifest


def export_tiny(directory, vision):
    arguments = ["--synthetic", "tiny", "--block-size", "32", "-o", str(directory)]
    done = CliRunner().invoke(command, [*arguments, "--vision", vision])
    assert done.exit_code == 0, done.output
    return load_manifest(directory)


def test_the_int8_tower_sees_what_the_float_tower_sees(tmp_path):
    whole, rounded = (export_tiny(tmp_path / name, name) for name in ("fp32", "int8"))
    assert (whole.precision.vision, rounded.precision.vision) == ("fp32", "int8")
    pixels = synthetic_pixel_values(rounded.vision)
    features = [OrtVision(tmp_path / name, 1).run(pixels) for name in ("fp32", "int8")]
    difference = np.abs(features[1] - features[0])
    cosine = lowest_cosine(features[1], features[0])
    assert cosine > 0.999, f"max {difference.max():.2e}, mean {difference.mean():.2e}, {cosine=}"
    assert difference.max() > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp32", "int8"]


def test_every_map_of_the_layers_has_a_range(tmp_path):
    ranges = synthetic_vision_ranges(synthetic_checkpoint("tiny"), tmp_path)
    maps = ("self_attn.qkv_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
    assert set(ranges) == {f"vision.encoder.layers.{i}.{name}" for i in (0, 1) for name in maps}
    assert all(value > 0 for value in ranges.values())


def test_a_folder_that_takes_no_files_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="could not write"):
        synthetic_vision_ranges(synthetic_checkpoint("tiny"), tmp_path / "file" / "folder")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("checkpoint",), "--vision goes with --synthetic"),
        (("--synthetic", "tiny", "--calibration", "c.json"), "--vision goes with --synthetic"),
        (("--synthetic", "tiny", "--precision", "fp16"), "--precision int8 or int4"),
    ],
)
def test_where_int8_vision_has_another_source(tmp_path, arguments, message):
    arguments = [*arguments, "--vision", "int8", "-o", str(tmp_path / "engine")]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert message in done.output
