"""A checkpoint's prompt is the one that transformers' processor makes of the same files, or refused."""

import json
from pathlib import Path

import pytest
from support.processor_folder import (
    TOKENS_PER_IMAGE,
    VOCABULARY,
    edit_json,
    our_ids,
    processor_ids,
    prompt_builder,
    write_processor_folder,
)

from edge_medgemma.export.checkpoint.chat_template import (
    read_chat_template,
    require_working_prompt,
)
from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.checkpoint.synthetic_tokenizer import CHAT_TEMPLATE
from edge_medgemma.export.checkpoint.tokenizer_files import read_tokenizer
from edge_medgemma.export.checkpoint.tokens import token_spec
from edge_medgemma.runtime.errors import CheckpointError

HEAD = "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + m.role + '\n' }}"
ITEMS = """\
{% for item in m.content -%}
    {%- if item.type == 'image' -%}<start_of_image>{%- else -%}{{ item.text | trim }}{%- endif -%}
{%- endfor %}"""
TAIL = """\
{{ '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif -%}"""
PLAIN = HEAD + ITEMS + TAIL


def items(of_image: str, of_text: str = "{{ item.text | trim }}") -> str:
    """The plain template with these in place of an image and of a text."""
    middle = ITEMS.replace("<start_of_image>", of_image)
    return HEAD + middle.replace("{{ item.text | trim }}", of_text) + TAIL


EQUAL = {
    "of the tiny checkpoint": CHAT_TEMPLATE,
    "plain": PLAIN,
    "without a first token": PLAIN.replace("{{ bos_token }}", ""),
    "generation blocks": "{% set role = 'user' %}"
    + PLAIN.replace(
        "{{ item.text | trim }}",
        "{% generation %}{% set role = 'nobody' %}{{ item.text | trim }}{% endgeneration %}",
    ).replace("m.role", "role"),
    "date": PLAIN.replace("{{ bos_token }}", "{{ bos_token + strftime_now('%d %B %Y') + '\n' }}"),
    "tojson": PLAIN.replace("{{ bos_token }}", "{{ bos_token + ({'a<b': 'é'} | tojson) + '\n' }}"),
    "tojson with options": PLAIN.replace(
        "{{ bos_token }}", "{{ bos_token + ([1, {'b': 2, 'a': 1}] | tojson(indent=2, sort_keys=true)) + '\n' }}"
    ),
    "guarded exception": "{% if messages | length != 1 %}{{ raise_exception('one') }}{% endif %}"
    + PLAIN,
    "break and continue": HEAD
    + "{% for item in m.content %}{% if item.type == 'image' %}<start_of_image>{% continue %}"
    "{% endif %}{{ item.text | trim }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
    + TAIL,
    "macro and namespace": "{% macro say(item) %}{{ item.text | trim }}{% endmacro %}"
    "{% set seen = namespace(images=0) %}"
    + items("<start_of_image>{% set seen.images = seen.images + 1 %}", "{{ say(item) }}"),
    "named tokens": items("{{ boi_token }}").replace("'<end_of_turn>\n'", "'<end_of_turn>' + eos_token + '\n'"),
    "lines around an image": items("{{ '\n<start_of_image>\n' }}"),
    "an image without its pixels is none": items("{{ '<start_of_image>' if 'image' in item }}"),
    "tools and documents are none": "{% if tools is not none or documents is not none %}"
    "{{ raise_exception('defined') }}{% endif %}" + PLAIN,
    "always opens the answer": PLAIN.replace("{%- if add_generation_prompt %}", "").replace(
        "{% endif -%}", ""
    ),
}  # fmt: skip

REFUSED = {
    "text only": (items(""), "shows 0 of 2 images"),
    "string only": (HEAD + "{{ m.content if m.content is string }}" + TAIL, "shows 0 of 2 images"),
    "one image for all": (
        HEAD + "<start_of_image>{% for i in m.content %}{{ i.text }}{% endfor %}" + TAIL,
        "shows 1 of 2 images",
    ),
    "two tokens an image": (items("<start_of_image><start_of_image>"), "shows 4 of 2 images"),
    "images first": (
        HEAD
        + "{% for i in m.content if i.type == 'image' %}<start_of_image>{% endfor %}"
        + "{% for i in m.content if i.type == 'text' %}{{ i.text }}{% endfor %}"
        + TAIL,
        "moves texts or images",
    ),
    "images last": (
        HEAD
        + "{% for i in m.content if i.type == 'text' %}{{ i.text }}{% endfor %}"
        + "{% for i in m.content if i.type == 'image' %}<start_of_image>{% endfor %}"
        + TAIL,
        "moves texts or images",
    ),
    "backwards": (PLAIN.replace("in m.content", "in m.content | reverse"), "moves texts or images"),
    "question twice": (
        HEAD + ITEMS + "{{ m.content[-1].text }}" + TAIL,
        "repeats a text",
    ),
    "no question": (PLAIN.replace("in m.content", "in m.content[:-1]"), "leaves out 1 of 4 texts"),
    "no instruction": (PLAIN.replace("in m.content", "in m.content[1:]"), "leaves out 1 of 4"),
    "cut texts": (items("<start_of_image>", "{{ item.text[:200] }}"), "changes a text of"),
    "upper case": (items("<start_of_image>", "{{ item.text | upper }}"), "changes a text of"),
    "escaped": (items("<start_of_image>", "{{ item.text | e }}"), "changes a text of"),
    "one line": (items("<start_of_image>", "{{ item.text | replace('\n', ' ') }}"), "changes a text"),
    "first token twice": (
        PLAIN.replace("{{ bos_token }}", "{{ bos_token + bos_token }}"),
        "write <bos> 2 times",
    ),
    "first token late": (PLAIN.replace("{{ bos_token }}", " {{ bos_token }}"), "<bos> 2 times"),
    "images spelled out": (
        items("<start_of_image>" + "<image_soft_token>" * TOKENS_PER_IMAGE + "<end_of_image>"),
        "makes 2 whole images of 2, and 70 tokens",
    ),
    "other marks": (PLAIN.replace("<start_of_turn>", "<|im_start|>"), r"writes <\|im_start\|>"),
    "no opening": (PLAIN.replace("<start_of_turn>model\n", ""), "does not end with the opening"),
    "closed answer": (
        PLAIN.replace("<start_of_turn>model\n", "<start_of_turn>model\n<end_of_turn>\n"),
        "ends the answer before",
    ),
    "a space in between": (
        items("<start_of_image>", "{{ 'Text: ' + item.text }}"),
        "tokens span them",
    ),
    "another special token": (PLAIN + "{{ mask_token if false }}", "writes mask_token"),
    "raises": ("{{ raise_exception('no images') }}", "fails .*no images"),
    "divides by zero": (PLAIN + "{{ 1 / 0 }}", "fails .*ZeroDivisionError"),
    "what is not there": (PLAIN + "{{ messages[9].role }}", "fails .*UndefinedError"),
    "includes a file": (PLAIN + "{% include '/etc/passwd' %}", "fails"),
    "escapes": (PLAIN + "{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails .*SecurityError"),
    "does not compile": (PLAIN + "{% if %}", "does not compile"),
    "empty": ("", "shows 0 of 2 images"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_processor_folder(tmp_path / "checkpoint")


def prove(folder: Path) -> None:
    """What `open_checkpoint` does with prompt and tokens of a checkpoint."""
    tokenizer = read_tokenizer(folder)
    tokens = token_spec(read_json(folder / "config.json"), {}, tokenizer, VOCABULARY)
    require_working_prompt(
        read_chat_template(folder),
        tokenizer,
        tokens,
        tokens_per_image=TOKENS_PER_IMAGE,
        vocabulary=VOCABULARY,
    )


@pytest.mark.parametrize("name", EQUAL)
def test_token_ids_are_those_of_transformers(folder: Path, name: str) -> None:
    (folder / "chat_template.jinja").write_text(EQUAL[name], encoding="utf-8")
    prove(folder)
    for slices in (0, 1, 3):
        assert our_ids(folder, slices) == processor_ids(folder, slices)


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_shows_something_else_is_refused(folder: Path, name: str) -> None:
    template, message = REFUSED[name]
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        prove(folder)


def test_an_image_begins_its_chunk_wherever_the_template_breaks_lines(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(EQUAL["lines around an image"], encoding="utf-8")
    builder = prompt_builder(folder)
    begin = builder.tokens.image_begin
    first, *slices = builder.prefix("Look.", 2)
    assert begin not in first.ids
    assert [chunk.ids.count(begin) for chunk in slices] == [1, 1]
    assert all(chunk.ids.index(begin) <= 2 for chunk in slices)


def test_no_first_token_anywhere_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(EQUAL["without a first token"], encoding="utf-8")
    edit_json(folder / "tokenizer.json", post_processor=None)
    assert our_ids(folder, 1) == processor_ids(folder, 1)
    with pytest.raises(CheckpointError, match="write <bos> 0 times"):
        prove(folder)


def test_a_last_token_behind_the_prompt_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(EQUAL["without a first token"], encoding="utf-8")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    processor = tokenizer["post_processor"]
    processor["single"].append({"SpecialToken": {"id": "<eos>", "type_id": 0}})
    processor["special_tokens"]["<eos>"] = {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}
    edit_json(folder / "tokenizer.json", post_processor=processor)
    assert our_ids(folder, 1) == processor_ids(folder, 1)
    with pytest.raises(CheckpointError, match="does not end with the opening"):
        prove(folder)


NAMED = [{"name": "default", "template": PLAIN}, {"name": "tool_use", "template": "tools"}]
OTHER = PLAIN.replace("model", "other")
PLACES = {
    "jinja": {"chat_template.jinja": PLAIN},
    "json": {"chat_template.json": {"chat_template": PLAIN}},
    "json before jinja": {
        "chat_template.json": {"chat_template": PLAIN},
        "chat_template.jinja": OTHER,
    },
    "processor before all": {
        "processor_config.json": {"chat_template": PLAIN},
        "chat_template.json": {"chat_template": OTHER},
        "chat_template.jinja": OTHER,
    },
    "processor says null": {
        "processor_config.json": {"chat_template": None},
        "chat_template.jinja": PLAIN,
    },
    "by name in the processor": {
        "processor_config.json": {"chat_template": {"default": PLAIN, "rag": OTHER}}
    },
    "by name in json": {"chat_template.json": {"chat_template": {"default": PLAIN, "rag": "x"}}},
    "jinja and more": {"chat_template.jinja": PLAIN, "additional_chat_templates/rag.jinja": OTHER},
    "default among more": {"additional_chat_templates/default.jinja": PLAIN},
    "jinja before default among more": {
        "chat_template.jinja": PLAIN,
        "additional_chat_templates/default.jinja": OTHER,
    },
    "more without default": {"additional_chat_templates/rag.jinja": OTHER},
    "json and more": {
        "chat_template.json": {"chat_template": PLAIN},
        "additional_chat_templates/rag.jinja": OTHER,
    },
    "json without template": {"chat_template.json": {}, "chat_template.jinja": PLAIN},
    "jinja before the tokenizer": {
        "chat_template.jinja": PLAIN,
        "tokenizer_config.json": {"chat_template": OTHER},
    },
    "windows lines": {"chat_template.jinja": PLAIN.replace("\n", "\r\n")},
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_the_template_is_the_one_that_transformers_takes(tmp_path: Path, name: str) -> None:
    from transformers import AutoProcessor

    folder = write_processor_folder(tmp_path / "checkpoint", template=None)
    (folder / "additional_chat_templates").mkdir()
    for path, content in PLACES[name].items():
        if isinstance(content, str):
            (folder / path).write_bytes(content.encode())
        else:
            edit_json(folder / path, **content)
    try:
        processor = AutoProcessor.from_pretrained(folder)
        expected = processor._resolve_chat_template(None)
    except (ValueError, KeyError):
        with pytest.raises(CheckpointError):
            read_chat_template(folder)
        return
    assert read_chat_template(folder) == expected
    assert our_ids(folder, 2) == processor_ids(folder, 2)


def test_named_templates_of_a_tokenizer_are_read_as_its_own_class_reads_them(
    tmp_path: Path,
) -> None:
    from transformers import AutoTokenizer

    folder = write_processor_folder(tmp_path / "checkpoint", template=None)
    edit_json(folder / "tokenizer_config.json", chat_template=NAMED)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert read_chat_template(folder) == tokenizer.get_chat_template() == PLAIN
    edit_json(folder / "tokenizer_config.json", chat_template=NAMED[1:])
    with pytest.raises(CheckpointError, match="templates tool_use and none named 'default'"):
        read_chat_template(folder)


def test_a_blind_template_is_refused_before_anything_is_written(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    import shutil

    folder = shutil.copytree(tiny_checkpoint, tmp_path / "blind")
    (folder / "chat_template.jinja").write_text(REFUSED["text only"][0], encoding="utf-8")
    with pytest.raises(CheckpointError, match="shows 0 of 2 images"):
        open_checkpoint(str(folder))
