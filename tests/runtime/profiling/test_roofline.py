"""Work counted by formula against published figures and against counting one by one."""

from dataclasses import replace

import pytest
from support.fake_engine import fake_manifest

from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
from edge_medgemma.runtime.manifest import FileRecord, Manifest
from edge_medgemma.runtime.profiling.roofline import (
    Peaks,
    Speeds,
    body_parameters,
    cache_read_bytes,
    decoder_bytes,
    decoder_ceiling,
    generation_work,
    head_parameters,
    kernel_speeds,
    onnxruntime_speeds,
    openvino_speeds,
    prefill_work,
    vision_ceiling,
    vision_flop,
)

PEAKS = Peaks(3e10, 2e10, 3e11, 9e11, 5e11)
OWN = onnxruntime_speeds(PEAKS)


@pytest.fixture(scope="module")
def medgemma() -> Manifest:
    """MedGemma 4B, int4 with an int8 head that the embedding shares."""
    checkpoint = synthetic_checkpoint("4b")
    sizes = {"decoder.data": 1_706_559_488, "embedding.data": 692_229_120}
    sizes |= {"vision.data": 1_680_019_456}
    manifest = fake_manifest()
    return replace(
        manifest,
        text=checkpoint.text,
        vision=checkpoint.vision,
        precision=replace(manifest.precision, embedding="head", head_block_size=128),
        files={name: FileRecord(size, "0" * 64) for name, size in sizes.items()},
    )


def test_a_slice_takes_what_siglip_takes(medgemma: Manifest) -> None:
    weights, attention = vision_flop(medgemma.vision, medgemma.text.hidden_size)
    assert (weights / 1e12, attention / 1e12) == pytest.approx((3.37, 2.09), abs=0.005)


def test_parameters_and_bytes_of_a_token(medgemma: Manifest) -> None:
    assert body_parameters(medgemma.text) / 1e9 == pytest.approx(3.209, abs=0.001)
    assert head_parameters(medgemma.text) / 1e9 == pytest.approx(0.671, abs=0.001)
    assert decoder_bytes(medgemma) == 1_706_559_488 + 692_229_120


def test_a_full_scan_s_prefill(medgemma: Manifest) -> None:
    assert prefill_work(medgemma, 24_000, 0).flop / 1e12 == pytest.approx(172, abs=1)


def test_cache_rows_stop_at_the_window(medgemma: Manifest) -> None:
    row = 2 * 4 * 256 * 4
    assert cache_read_bytes(medgemma, 100) == 34 * 100 * row
    assert cache_read_bytes(medgemma, 8192) == (5 * 8192 + 29 * 1024) * row


def test_reading_in_parts_is_the_same_attention(medgemma: Manifest) -> None:
    whole = prefill_work(medgemma, 1500, 0)
    parts = [prefill_work(medgemma, 1000, 0), prefill_work(medgemma, 500, 1000)]
    assert sum(part.other_flop for part in parts) == whole.other_flop
    ones = generation_work(medgemma, 3, 7)
    assert ones.other_flop == prefill_work(medgemma, 3, 7).other_flop


def test_the_first_tokens_see_themselves(medgemma: Manifest) -> None:
    pair = 4 * 8 * 256  # scores and values of every head
    assert prefill_work(medgemma, 1, 0).other_flop == 34 * 1 * pair
    assert prefill_work(medgemma, 3, 0).other_flop == 34 * (1 + 2 + 3) * pair
    assert prefill_work(medgemma, 1, 4999).other_flop == (5 * 5000 + 29 * 1024) * pair


def test_the_ceiling_is_what_takes_longer(medgemma: Manifest) -> None:
    token = decoder_ceiling(medgemma, generation_work(medgemma, 1, 0), PEAKS, 0.2, OWN)
    assert token is not None and token.bound == "memory"
    assert token.seconds == pytest.approx(2.399e9 / 3e10, rel=0.01)
    assert token.fraction == pytest.approx(token.seconds / 0.2)
    prompt = decoder_ceiling(medgemma, prefill_work(medgemma, 512, 0), PEAKS, 10.0, OWN)
    assert prompt is not None and prompt.bound == "compute"
    image = vision_ceiling(medgemma, 1, PEAKS, 20.0, OWN)
    assert image is not None
    assert image.seconds == pytest.approx((3.374e12 + 2.087e12) / 3e11, rel=0.001)


def test_answers_read_the_draft_and_int8_caches(medgemma: Manifest) -> None:
    plane, scales = 671_252_480 // 2, 671_252_480 // 128 * 2
    precision = replace(
        medgemma.precision, head_block_size=128, decode_kv_cache="int8", draft_head="int4"
    )
    table = FileRecord(2 * plane + scales, "0" * 64)
    fast = replace(medgemma, precision=precision, files=medgemma.files | {"embedding.data": table})
    untied = replace(
        fast,
        precision=replace(precision, embedding="int8"),
        files=fast.files | {"decoder.data": FileRecord(1_706_559_488 + table.bytes, "0" * 64)},
    )
    for engine in (fast, untied):
        assert decoder_bytes(engine) == 1_706_559_488 + 2 * (plane + scales)
        assert decoder_bytes(engine, is_decode=True) == 1_706_559_488 + plane + scales
    rows = 5 * 8192 + 29 * 1024
    assert cache_read_bytes(fast, 8192, is_decode=True) == rows * 2 * 4 * 256
    assert cache_read_bytes(fast, 100, is_decode=True) == cache_read_bytes(medgemma, 100)


def test_openvino_computes_floats_in_bfloat16(medgemma: Manifest) -> None:
    peaks = replace(PEAKS, bf16_flop_per_s=6e11)
    image = vision_ceiling(medgemma, 1, peaks, 20.0, openvino_speeds(peaks))
    assert image is not None
    assert image.seconds == pytest.approx((3.374e12 + 2.087e12) / 6e11, rel=0.001)
    assert openvino_speeds(PEAKS) == onnxruntime_speeds(PEAKS)


def test_kernels_are_held_against_their_own_instructions(medgemma: Manifest) -> None:
    loops = {"int8": 2e12, "int16": 1e12, "float32": 5e11}
    laptop = replace(PEAKS, instruction_flop_per_s=loops)
    server = replace(
        laptop,
        instruction_flop_per_s=loops | {"int8 tiles": 16e12, "bfloat16 tiles": 8e12},
    )
    assert kernel_speeds(laptop) == Speeds(2e12, 1e12, 1e12, int8_attention=2e12)
    assert kernel_speeds(server) == Speeds(16e12, 1e12, 8e12, int8_attention=8e12)
    work = prefill_work(medgemma, 512, 8192)
    slow = decoder_ceiling(medgemma, work, laptop, 10.0, onnxruntime_speeds(laptop))
    fast = decoder_ceiling(medgemma, work, laptop, 10.0, kernel_speeds(laptop))
    assert slow is not None and fast is not None
    saved_s = work.other_flop / 3e11 - work.other_flop / 1e12
    assert slow.seconds - fast.seconds == pytest.approx(saved_s, rel=0.001)


def test_int8_vision_has_its_attention_in_float_but_on_our_kernels(medgemma: Manifest) -> None:
    int8 = replace(medgemma, precision=replace(medgemma.precision, vision="int8"))
    image = vision_ceiling(int8, 1, PEAKS, 20.0, OWN)
    assert image is not None
    assert image.seconds == pytest.approx(3.374e12 / 9e11 + 2.087e12 / 3e11, rel=0.001)
    peaks = replace(PEAKS, instruction_flop_per_s={"int8": 2e12, "int16": 1e12})
    image = vision_ceiling(int8, 1, peaks, 20.0, kernel_speeds(peaks))
    assert image is not None
    assert image.seconds == pytest.approx((3.374e12 + 2.087e12) / 2e12, rel=0.001)


def test_without_peaks_there_is_no_ceiling(medgemma: Manifest) -> None:
    nothing = Peaks(3e10, 2e10, None, None, None)
    assert vision_ceiling(medgemma, 1, nothing, 1.0, onnxruntime_speeds(nothing)) is None
