"""The chat template of a checkpoint, rendered as transformers renders it.

Names, filters and extensions are those of `transformers.utils.chat_template_utils` (5.24): a template
that works there works here, and writes the same text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge_medgemma.runtime.errors import EngineError

Content = Sequence[Mapping[str, str]]
"""Items of the user's message: {"type": "text", "text": ...} or {"type": "image", "image": ...}"""

IMAGE_ITEM: Mapping[str, str] = {"type": "image", "image": "<Image>"}
"""An image of a message; templates see that it is there, never its pixels."""


class ChatTemplate:
    """One compiled template with the special tokens that it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile `source`; `special_tokens` maps names such as bos_token to spellings.

        Raises:
            EngineError: the template does not compile.
        """
        self._special_tokens = dict(special_tokens)
        environment = _environment()
        try:
            self.names = frozenset(meta.find_undeclared_variables(environment.parse(source)))
            """Variables that the template reads from outside."""
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError, ValueError) as error:
            raise EngineError(f"the chat template does not compile ({_one_line(error)})") from None

    def render(self, content: Content, *, opens_answer: bool = True) -> str:
        """The text of one user's message; `opens_answer` adds the opening of the model's turn.

        Raises:
            EngineError: the template refuses the message or fails.
        """
        return self.render_turns([("user", content)], opens_answer=opens_answer)

    def render_turns(
        self, turns: Sequence[tuple[str, Content]], *, opens_answer: bool = True
    ) -> str:
        """The text of a conversation: roles (`system`, `user`, `assistant`) and their messages.

        Raises:
            EngineError: the template refuses a message or fails.
        """
        try:
            return self._template.render(
                {
                    "messages": [
                        {"role": role, "content": [dict(item) for item in content]}
                        for role, content in turns
                    ],
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": opens_answer,
                    **self._special_tokens,
                }
            )
        except Exception as error:  # noqa: BLE001 a template can raise whatever Python can
            raise EngineError(f"the chat template fails ({_one_line(error)})") from None


class _GenerationBlock(Extension):
    """`{% generation %}` .. `{% endgeneration %}` marks what a model said; it writes its body.

    The body is a call block, as there: names set within are not seen behind it.
    """

    tags = {"generation"}  # noqa: RUF012 as the base class has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own filter it leaves `<` and `&` as they are."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _one_line(error: Exception) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return words if len(words) <= 200 else f"{words[:200]}..."
