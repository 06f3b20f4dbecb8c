"""OpenAI's own client asks a real engine about pictures, through the page and the mailbox."""

import base64
import io
import time
from collections.abc import Iterator

import numpy as np
import openai
import pytest
from openai import OpenAI
from PIL import Image
from support.answering_worker import answering
from support.page_server import Caller, serving

from edge_medgemma.runtime.clinic.page.access.tokens import Tokens
from edge_medgemma.runtime.clinic.page.api.chat_messages import parse_request, to_question
from edge_medgemma.runtime.clinic.page.api.stop_texts import StopTexts
from edge_medgemma.runtime.clinic.page.api_routes import routes
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import Turn
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.triage.picture_chat import open_chat

TEXT = "PLANTED-NAME has a cough. What is shown?"


def _picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (40, 60), dtype=np.uint8)


def _uri(pixels: np.ndarray, form: str = "PNG") -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _image(uri: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": uri}}


ASKED = [
    {"role": "system", "content": "You read radiographs."},
    {"role": "user", "content": [{"type": "text", "text": TEXT}, _image(_uri(_picture()))]},
]


@pytest.fixture
def port(state: StateFolder) -> Iterator[int]:
    settings = ClinicSettings()
    with serving(state, list(routes(state, settings)), settings) as port:
        yield port


@pytest.fixture
def client(state: StateFolder, port: int) -> OpenAI:
    token = Tokens(state).add("records")
    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=token, max_retries=0, timeout=60)


LIVELY = {"temperature": 1.0, "seed": 3}
"""The tiny engine ends most greedy answers at once."""


def _expected(engine: Engine, turns: list[Turn], pictures: list[np.ndarray], count: int) -> str:
    coloured = [np.repeat(one[..., None], 3, axis=2) for one in pictures]
    pieces = open_chat(engine, turns, coloured).answer(Sampling(1.0, seed=3), count)
    return "".join(piece.text for piece in pieces if not piece.is_thought)


def test_openais_client_asks_about_a_picture(
    client: OpenAI, state: StateFolder, tiny_engine: Engine
) -> None:
    with answering(tiny_engine, state):
        (model,) = client.models.list().data
        assert model.id == tiny_engine.manifest.source.name
        found = client.chat.completions.create(
            model=model.id, messages=ASKED, max_tokens=12, **LIVELY
        )
        stream = client.chat.completions.create(
            model=model.id,
            messages=ASKED,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
            **LIVELY,
        )
        chunks = list(stream)
    turns = [Turn("system", ("You read radiographs.",)), Turn("user", (TEXT, None))]
    expected = _expected(tiny_engine, turns, [_picture()], 12)
    (choice,) = found.choices
    assert choice.message.content == expected and len(expected) > 3
    assert choice.finish_reason in ("stop", "length")
    streamed = [one.choices[0].delta.content or "" for one in chunks if one.choices]
    assert "".join(streamed) == expected and len(list(filter(None, streamed))) > 1
    assert [one.choices[0].finish_reason for one in chunks if one.choices][
        -1
    ] == choice.finish_reason
    tokens = tiny_engine.prompt.conversation(turns).num_tokens
    assert found.usage is not None and found.usage == chunks[-1].usage
    assert found.usage.prompt_tokens == tokens and 0 < found.usage.completion_tokens <= 12
    _assert_nothing_is_left(state)


def test_several_pictures_keep_their_place(
    client: OpenAI, state: StateFolder, tiny_engine: Engine
) -> None:
    first, second = _picture(1), _picture(2)
    messages = [
        {"role": "user", "content": [
            _image(_uri(first)), {"type": "text", "text": "Before."},
            _image(_uri(second)), {"type": "text", "text": "After."},
        ]},
        {"role": "assistant", "content": "Two pictures."},
        {"role": "user", "content": "Which is older?"},
    ]  # fmt: skip
    turns = [
        Turn("user", (None, "Before.", None, "After.")),
        Turn("assistant", ("Two pictures.",)),
        Turn("user", ("Which is older?",)),
    ]
    with answering(tiny_engine, state):
        found = client.chat.completions.create(
            model="edge-medgemma", messages=messages, max_tokens=10, **LIVELY
        )
    expected = _expected(tiny_engine, turns, [first, second], 10)
    assert found.choices[0].message.content == expected
    assert expected != _expected(tiny_engine, turns, [second, first], 10)


def test_a_stop_text_ends_the_answer_and_the_engines_work(
    client: OpenAI, state: StateFolder, tiny_engine: Engine
) -> None:
    whole = _expected(tiny_engine, [Turn("user", ("Hello.",))], [], 40)
    stop = whole[4:7]
    with answering(tiny_engine, state):
        found = client.chat.completions.create(
            model="edge-medgemma", messages=[{"role": "user", "content": "Hello."}],
            max_tokens=40, stop=[stop], **LIVELY,
        )  # fmt: skip
    assert found.choices[0].message.content == whole[: whole.index(stop)]
    assert found.choices[0].finish_reason == "stop"
    _assert_nothing_is_left(state)


@pytest.mark.parametrize("stops", [["ab"], ["abc", "cb"], ["aa", "ba"], ["x"]])
def test_stop_texts_are_found_across_pieces(stops: list[str]) -> None:
    text = "aaabcbab"
    ends = [text.find(one) for one in stops if one in text]
    for size in (1, 2, 3, 8):
        watch = StopTexts(stops)
        parts = [watch.add(text[i : i + size]) for i in range(0, len(text), size)]
        assert "".join(parts) + watch.rest() == (text[: min(ends)] if ends else text)
        assert watch.has_stopped == bool(ends)


REFUSED = [
    ({"n": 2}, "n must be 1"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "calls no tools"),
    ({"logprobs": True}, "no logprobs"),
    ({"response_format": {"type": "json_object"}}, "answers are text"),
    ({"frequency_penalty": 0.5}, "no penalty"),
    ({"temperature": 3.0}, "temperature"),
    ({"messages": []}, "the first and the last message"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "roles are"),
    ({"messages": [{"role": "user", "content": " "}]}, "a message is empty"),
    (
        {"messages": [{"role": "user", "content": [_image("https://evil.example/a.png")]}]},
        "opens no address",
    ),
    ({"messages": [{"role": "user", "content": [_image("data:image/gif;base64,AAAA")]}]}, "PNG or JPEG"),
    ({"messages": [{"role": "user", "content": [_image("data:image/png;base64,A===A")]}]}, "damaged"),
    ({"messages": [{"role": "user", "content": [_image("data:image/png;base64,AAAA")]}]}, "no PNG or JPEG"),
    (
        {"messages": [{"role": "user", "content": [_image(_uri(_picture(), "JPEG"))] * 33}]},
        "at most 32 pictures",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_what_is_not_done_is_refused_in_words(
    client: OpenAI, state: StateFolder, tiny_engine: Engine, change: dict, words: str
) -> None:
    with answering(tiny_engine, state), pytest.raises(openai.BadRequestError, match=words) as found:
        client.chat.completions.create(**{"model": "edge-medgemma", "messages": ASKED, **change})
    assert "PLANTED" not in str(found.value)
    _assert_nothing_is_left(state)


def test_errors_are_those_that_the_client_knows(
    client: OpenAI, state: StateFolder, port: int, tiny_engine: Engine
) -> None:
    with pytest.raises(openai.InternalServerError, match="engine is not running"):
        client.chat.completions.create(model="edge-medgemma", messages=ASKED)
    with answering(tiny_engine, state):
        with pytest.raises(openai.NotFoundError, match="no model of this name"):
            client.chat.completions.create(model="gpt-4", messages=ASKED)
        long = [{"role": "user", "content": "word " * 5000}]
        with pytest.raises(openai.InternalServerError, match="tokens"):
            client.chat.completions.create(model="edge-medgemma", messages=long)
        with pytest.raises(openai.APIError, match="tokens"):
            list(client.chat.completions.create(
                model="edge-medgemma", stream=True,
                messages=long,
            ))  # fmt: skip
    stranger = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    _assert_nothing_is_left(state)


def test_a_damaged_picture_is_said(client: OpenAI, state: StateFolder, tiny_engine: Engine) -> None:
    cut = _uri(_picture())[:600].ljust(602, "A")
    messages = [{"role": "user", "content": [_image(cut)]}]
    with (
        answering(tiny_engine, state),
        pytest.raises(openai.InternalServerError, match="Picture 1 is no PNG or JPEG"),
    ):
        client.chat.completions.create(model="edge-medgemma", messages=messages)


def test_a_client_that_leaves_stops_the_engine(
    client: OpenAI, state: StateFolder, tiny_engine: Engine
) -> None:
    with answering(tiny_engine, state):
        stream = client.chat.completions.create(
            model="edge-medgemma", messages=ASKED, max_tokens=2000, stream=True, **LIVELY
        )
        next(iter(stream))
        stream.close()
        impatient = client.with_options(timeout=0.05)
        with pytest.raises(openai.APITimeoutError):
            impatient.chat.completions.create(
                model="edge-medgemma", messages=[{"role": "user", "content": "x " * 1500}],
                max_tokens=2000, **LIVELY,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while _left(state) and time.monotonic() < deadline:
            time.sleep(0.02)
        _assert_nothing_is_left(state)


def test_messages_become_turns_that_a_template_takes() -> None:
    body = (
        b'{"model": "m", "messages": [{"role": "developer", "content": "a"},'
        b' {"role": "system", "content": "b"}, {"role": "user", "content": "c"},'
        b' {"role": "user", "content": [{"type": "text", "text": "d"}]},'
        b' {"role": "assistant", "content": null}, {"role": "user", "content": "e"}], "unknown": 1}'
    )
    with pytest.raises(Exception, match="a message is empty"):
        to_question(parse_request(body))
    question, _ = to_question(parse_request(body.replace(b"null", b'"x"')))
    assert [(m.role, [p.text for p in m.parts]) for m in question.messages] == [
        ("system", ["a\nb"]), ("user", ["c\nd"]), ("assistant", ["x"]), ("user", ["e"]),
    ]  # fmt: skip


def _left(state: StateFolder) -> list[str]:
    return [path.name for path in state.questions.iterdir() if path.name != "engine.json"]


def _assert_nothing_is_left(state: StateFolder) -> None:
    """Neither in the mailbox nor in any file: no text of a question outlives it."""
    assert not _left(state)
    for path in state.path.rglob("*"):
        assert not path.is_file() or b"PLANTED" not in path.read_bytes()
    assert all("PLANTED" not in line.detail for line in audit.read(state))


def test_a_browser_may_not_ask_without_its_change_token(port: int, state: StateFolder) -> None:
    assert Caller(port)("POST", "/v1/chat/completions", {"a": 1}).status == 401
