"""Slices of the viewer: square pixels, sides, windows, and a cache that stays within its bounds."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from edge_medgemma.runtime.clinic.page import image_cache, slices, stacks
from edge_medgemma.runtime.clinic.page.image_cache import ImageCache
from edge_medgemma.runtime.clinic.page.slices import list_stacks, render_chunk, value_range
from edge_medgemma.runtime.clinic.page.viewer_windows import viewer_windows
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Problem
from edge_medgemma.runtime.slicing.windows import render_stack

Filled = tuple[StateFolder, dict[str, str]]
REAL_HEAD = Path(__file__).resolve().parents[4] / "data" / "ct_head"


def _grey(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(float)


def test_stack_says_all_that_the_viewer_needs(client: TestClient, keys: dict[str, str]) -> None:
    described = client.get(f"/studies/{keys['critical']}/stack").json()
    (stack,) = described["stacks"]
    assert stack["slices"] == 34 == len(stack["positions"])
    assert (stack["left"], stack["right"]) == ("R", "L")
    assert [name for name, _ in stack["windows"]][:3] == ["brain", "soft_tissue", "bone"]
    assert described["places"]["15"] == [0, 15]  # a key slice of the report
    picture = client.get(f"{stack['base']}/brain/15.jpg")
    assert picture.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(picture.content)).size == (stack["width"], stack["height"])
    assert client.get(f"{stack['base']}/brain/34.jpg").status_code == 422
    assert client.get(f"{stack['base']}/nothing/3.jpg").status_code == 422


def test_key_slices_are_found_where_they_lie_now(client: TestClient, keys: dict[str, str]) -> None:
    """The report of this study is of 34 slices; only five of them are in its folder."""
    whole = client.get(f"/studies/{keys['critical']}/stack").json()
    part = client.get(f"/studies/{keys['incomplete']}/stack").json()
    assert part["stacks"][0]["slices"] == 5
    positions = part["stacks"][0]["positions"]
    for index, (_, place) in part["places"].items():
        assert positions[place] == whole["stacks"][0]["positions"][int(index)]
    assert 0 < len(part["places"]) < len(whole["places"])


def test_windows_are_those_that_the_model_saw(phantom_scan: Path) -> None:
    (stack,) = list_stacks(phantom_scan)
    shown = render_stack(read_volume(stack.series, [14])).pixels[0]
    assert stack.windows[0].name == "brain"
    for name, channel in [("wide", 0), ("soft_tissue", 1), ("brain", 2)]:
        window = stack.window(name)
        assert window is not None
        jpeg = dict(render_chunk(stack, window, 14, value_range(stack)))[14]
        assert np.abs(_grey(jpeg) - shown[..., channel]).mean() < 2


def test_pixels_are_square_where_the_scans_are_not() -> None:
    (stack,) = list_stacks(REAL_HEAD)
    _, rows, columns = stack.series.shape
    slice_mm, row_mm, column_mm = stack.series.spacing_mm
    longer = replace(stack.series, spacing_mm=(slice_mm, 2 * row_mm, column_mm))
    made = slices._stack(longer)
    assert made.height / made.width == pytest.approx(2 * rows / columns, rel=0.01)
    assert max(made.height, made.width) <= slices.MAX_SLICE_PIXELS


@pytest.mark.parametrize(
    ("modality", "first", "needs_range"),
    [(Modality.MR, "range", True), (Modality.DX, "stored", False), (Modality.CT, "brain", False)],
)
def test_windows_fit_the_kind_of_scan(modality: Modality, first: str, needs_range: bool) -> None:
    series = replace(find_series(REAL_HEAD).series[0], modality=modality, body_part=BodyPart.HEAD)
    windows = viewer_windows(series)
    assert windows[0].name == first
    assert any(one.of_range for one in windows) is needs_range
    assert len({one.name for one in windows}) == len(windows)
    untrusted = replace(series, problems=(Problem("not_hounsfield", ""),))
    if modality is Modality.CT:
        assert all(one.of_range for one in viewer_windows(untrusted))


def test_a_range_of_one_value_is_shown_all_the_same() -> None:
    window = viewer_windows(replace(find_series(REAL_HEAD).series[0], modality=Modality.MR))[0]
    assert window.render(np.full((2, 2), 7, np.float32), (7.0, 7.0)).max() == 0


def test_cache_drops_the_study_seen_longest_ago_and_what_has_no_scan(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.create()
    old, new, gone = "a" * 32, "b" * 32, "c" * 32
    for key in (old, new):
        (state.spool / key).mkdir()
    cache = ImageCache(state, max_bytes=100, least_free_bytes=0)
    cache.write(old, "t/w/0.jpg", b"x" * 40)
    cache.write(new, "t/w/0.jpg", b"y" * 40)
    assert cache.read(old, "t/w/0.jpg") == b"x" * 40
    cache.write(gone, "t/w/0.jpg", b"z" * 40)
    assert cache.read(new, "t/w/0.jpg") is None and cache.read(old, "t/w/0.jpg") is not None
    again = ImageCache(state, max_bytes=100, least_free_bytes=0)
    assert again.read(gone, "t/w/0.jpg") is None and again.read(old, "t/w/0.jpg") is not None


def test_nothing_is_cached_on_a_disk_that_is_almost_full(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.create()
    cache = ImageCache(state, least_free_bytes=1 << 60)
    cache.write("a" * 32, "t/w/0.jpg", b"x")
    assert cache.read("a" * 32, "t/w/0.jpg") is None


def test_a_slice_is_rendered_once(
    filled: Filled, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = filled[1]["critical"]
    base = client.get(f"/studies/{key}/stack").json()["stacks"][0]["base"]
    first = client.get(f"{base}/bone/3.jpg").content
    monkeypatch.setattr(stacks, "render_chunk", lambda *_: pytest.fail("rendered again"))
    assert client.get(f"{base}/bone/3.jpg").content == first
    assert client.get(f"{base}/bone/4.jpg").status_code == 200
    assert image_cache.MAX_CACHE_BYTES > 0


def test_compressed_slices_are_decoded_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting one takes seconds; `render_chunk` keeps that of its caller."""
    from edge_medgemma.runtime.slicing.pixels import codec_process
    from edge_medgemma.runtime.slicing.pixels.codec_pool import CodecPool

    (stack,) = list_stacks(REAL_HEAD)
    monkeypatch.setattr(slices, "CHUNK_SLICES", 2)
    with CodecPool(1) as pool:
        first = dict(render_chunk(stack, stack.windows[0], 0, (0, 1), pool))
        monkeypatch.setattr(codec_process, "_start", lambda: pytest.fail("started again"))
        second = dict(render_chunk(stack, stack.windows[0], 2, (0, 1), pool))
    assert sorted(first) == [0, 1] and sorted(second) == [2, 3]
