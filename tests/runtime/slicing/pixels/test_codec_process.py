import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.pixels import codec_pool, codec_process
from edge_medgemma.runtime.slicing.pixels.codec_process import CodecProcess
from edge_medgemma.runtime.slicing.pixels.pixel_data import decode_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Modality

HEAD_CT_SLICE = Path(__file__).resolve().parents[3] / "data/ct_head/14.dcm"


@pytest.fixture
def codecs() -> Iterator[CodecProcess]:
    with CodecProcess() as process:
        yield process


def running(code: str) -> Callable[[], subprocess.Popen[bytes]]:
    """What starts a process that runs `code` instead of decoding."""
    pipe = subprocess.PIPE
    return lambda: subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe)


def test_the_process_decodes_as_this_one_does(codecs: CodecProcess) -> None:
    here = decode_slices(HEAD_CT_SLICE, [0], Modality.CT)
    there = codecs.decode(HEAD_CT_SLICE, [0], Modality.CT)
    np.testing.assert_array_equal(there.values, here.values)


def test_a_damaged_file_is_named_and_the_next_one_read(
    codecs: CodecProcess, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(HEAD_CT_SLICE.read_bytes()[:20_000])
    with pytest.raises(UnreadableFileError, match="truncated: the compressed pixels end"):
        codecs.decode(damaged, [0], Modality.CT)
    assert codecs.decode(HEAD_CT_SLICE, [0], Modality.CT).values.shape == (1, 512, 512)


def test_a_crash_costs_one_file(codecs: CodecProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(codec_process, "_start", running("import os; input(); os.abort()"))
        with pytest.raises(UnreadableFileError, match="crashes the codec"):
            codecs.decode(HEAD_CT_SLICE, [0], Modality.CT)
    assert codecs.decode(HEAD_CT_SLICE, [0], Modality.CT).values.shape == (1, 512, 512)


WORKER_WHOSE_CODEC = """
import time
from edge_medgemma.runtime.slicing.pixels import codec_worker
decode = codec_worker.decode_slices
def {}(*arguments):
    {}
    return decode(*arguments)
codec_worker.decode_slices = {}
codec_worker.main()
"""


def test_an_endless_codec_ends(codecs: CodecProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    code = WORKER_WHOSE_CODEC.format("spins", "while True: pass", "spins")
    monkeypatch.setattr(codec_process, "_start", running(code))
    monkeypatch.setattr(codec_process, "FILE_LIMIT_S", 0.1)
    monkeypatch.setattr(codec_process, "FRAME_LIMIT_S", 0.1)
    with pytest.raises(UnreadableFileError, match="takes longer than"):
        codecs.decode(HEAD_CT_SLICE, [0], Modality.CT)


def test_waiting_for_a_processor_is_no_hang(
    codecs: CodecProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is below the seconds that pass here, as they do on a busy device."""
    code = WORKER_WHOSE_CODEC.format("waits", "time.sleep(1.5)", "waits")
    monkeypatch.setattr(codec_process, "_start", running(code))
    monkeypatch.setattr(codec_process, "FILE_LIMIT_S", 0.5)
    monkeypatch.setattr(codec_process, "FRAME_LIMIT_S", 0.5)
    assert codecs.decode(HEAD_CT_SLICE, [0], Modality.CT).values.shape == (1, 512, 512)


def test_an_unanswered_request_ends(codecs: CodecProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_process, "_start", running("import time; time.sleep(60)"))
    monkeypatch.setattr(codec_process, "IDLE_LIMIT_S", 0.1)
    with pytest.raises(UnreadableFileError, match="no answer within"):
        codecs.decode(HEAD_CT_SLICE, [0], Modality.CT)


def test_several_processes_decode_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    (series,) = find_series(HEAD_CT_SLICE.parent).series
    alone = read_volume(series)
    monkeypatch.setattr(codec_pool, "PORTIONS_PER_PROCESS", 10)
    monkeypatch.setattr(codec_pool, "usable_cores", lambda: 3)
    with codec_pool.CodecPool(series.shape[0]) as pool:
        assert pool.size == 3
    np.testing.assert_array_equal(read_volume(series).array, alone.array)
