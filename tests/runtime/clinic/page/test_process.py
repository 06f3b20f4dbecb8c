"""The page's own process, asked by OpenAI's client, killed and stopped in the middle of an answer."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from openai import OpenAI
from PIL import Image
from support.answering_worker import answering
from support.page_server import free_port

from edge_medgemma.runtime.clinic.page.access.tokens import Tokens
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.generation.engine import Engine

ENDLESS = {"max_tokens": 2000, "temperature": 1.0, "seed": 3}


@contextlib.contextmanager
def _page(state: StateFolder, port: int) -> Iterator[subprocess.Popen[str]]:
    """`edge-medgemma clinic page` on a port, until the block ends."""
    settings = state.path.parent / "clinic.toml"
    settings.write_text(f"[page]\nport = {port}\n")
    words = ["-m", "edge_medgemma", "clinic", "page", "--state", str(state.path)]
    process = subprocess.Popen(
        [sys.executable, *words, "--settings", str(settings)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        for _ in range(1000):
            assert process.poll() is None, process.communicate()[0]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _picture() -> str:
    import base64

    buffer = io.BytesIO()
    Image.fromarray(np.full((30, 30), 77, np.uint8)).save(buffer, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _messages() -> list[dict]:
    url = {"type": "image_url", "image_url": {"url": _picture()}}
    return [{"role": "user", "content": [url, {"type": "text", "text": "PLANTED: what is it?"}]}]


def _left(state: StateFolder) -> list[str]:
    return [path.name for path in state.questions.iterdir() if path.name != "engine.json"]


def _wait_until_nothing_is_left(state: StateFolder) -> None:
    for _ in range(1000):
        if not _left(state):
            return
        time.sleep(0.02)
    raise AssertionError(_left(state))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_page_that_ends_in_the_middle_leaves_nothing(
    tmp_path: Path, tiny_engine: Engine, number: signal.Signals
) -> None:
    state = StateFolder(tmp_path / "state")
    state.create()
    token, port = Tokens(state).add("records"), free_port()
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=token, max_retries=0)
    with answering(tiny_engine, state), _page(state, port) as process:
        whole = client.chat.completions.create(
            model="edge-medgemma", messages=_messages(), max_tokens=8, temperature=1.0, seed=3
        )
        assert whole.choices[0].message.content
        stream = client.chat.completions.create(
            model="edge-medgemma", messages=_messages(), stream=True, **ENDLESS
        )
        first = next(iter(stream))
        assert first.choices[0].delta.role == "assistant" and len(_left(state)) == 1
        os.kill(process.pid, number)
        with contextlib.suppress(openai.APIError, openai.APIConnectionError, Exception):
            for _ in stream:
                pass
        output, _ = process.communicate(timeout=20)
        assert process.returncode == (-number if number is signal.SIGKILL else 0), output
        _wait_until_nothing_is_left(state)
    assert "PLANTED" not in output and "Traceback" not in output, output
    for path in state.path.rglob("*"):
        assert not path.is_file() or b"PLANTED" not in path.read_bytes(), path
