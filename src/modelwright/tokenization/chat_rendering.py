"""A conversation becomes text: a Jinja template that runs in a sandbox, and which characters the assistant wrote."""

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from modelwright.core.errors import InputError

# Characters that no text has, put in while rendering and taken out afterwards; digits survive `upper` and the like.
_KEY = secrets.randbits(96)
_OPEN, _CLOSE, _END = (f"\0{_KEY}{kind}\0" for kind in "123")
# The variable that asks for the first two.
_TRACKED = "_modelwright_tracked"


@dataclass(frozen=True)
class RenderedChat:
    """The text of a conversation, and the (start, end) characters inside `{% generation %}` blocks."""

    text: str
    spans: list[tuple[int, int]]


def render_chat(
    where: str,
    template: str,
    conversation: Sequence[Mapping[str, Any]],
    *,
    continue_final_message: bool = False,
    track_assistant: bool = False,
    **variables: Any,
) -> RenderedChat:
    """Return one conversation, a list of messages such as {"role": "user", "content": "Hi"}, as text.

    The template sees `messages` and the variables, and `raise_exception`, `strftime_now` and the filter `tojson`.
    continue_final_message: end the text with the last message's, not with what the template puts after it.
    track_assistant: note the `{% generation %}` blocks.
    Raises InputError for a template that is wrong, refuses the conversation, or leaves the sandbox.
    """
    import jinja2

    messages = list(conversation)
    if continue_final_message:
        messages = _with_open_end(where, messages)
    try:
        text = str(_compiled(template).render(messages=messages, **variables, **{_TRACKED: track_assistant}))
    except jinja2.TemplateError as error:
        raise InputError(f"{where}: the chat template cannot be used: {error}.") from error
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{where}: the chat template does not take this conversation: {error}.") from error
    if continue_final_message:
        text = _up_to_open_end(where, text)
    return _without_marks(text)


def _with_open_end(where: str, messages: list[Any]) -> list[Any]:
    """Return a copy of `messages` with a mark at the end of the last text of the last one."""
    last = deepcopy(messages[-1]) if messages else {}
    content = last.get("content")
    if isinstance(content, str):
        last["content"] = f"{content}{_END} "
        return [*messages[:-1], last]
    for block in reversed(content if isinstance(content, list) else []):
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            block["text"] += f"{_END} "
            return [*messages[:-1], last]
    raise InputError(f"{where}: continue_final_message: expected text in the final message, got {content!r}.")


def _up_to_open_end(where: str, text: str) -> str:
    before, mark, after = text.rpartition(_END)
    if not mark:
        raise InputError(
            f"{where}: continue_final_message: the chat template leaves out or changes the end of the final message."
        )
    # A template that takes the space after the mark takes the spaces at the end of a message.
    return before if after.startswith(" ") else before.rstrip()


def _without_marks(text: str) -> RenderedChat:
    pieces, spans, length, start = [], [], 0, None
    for piece in re.split(f"({_OPEN}|{_CLOSE})", text):
        if piece == _OPEN:
            start = length
        elif piece == _CLOSE:
            if start is not None:
                spans.append((start, length))
            start = None
        else:
            pieces.append(piece)
            length += len(piece)
    return RenderedChat("".join(pieces), spans)


@lru_cache(maxsize=32)
def _compiled(template: str) -> Any:
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation_block(), loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


def _generation_block() -> Any:
    """Return the extension for `{% generation %}` ... `{% endgeneration %}`, which holds what the assistant wrote."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 (the base class has a set)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_marked", [nodes.ContextReference()])
            return nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _marked(self, context: Any, caller: Callable[[], str]) -> str:
            return f"{_OPEN}{caller()}{_CLOSE}" if context.get(_TRACKED) else caller()

    return Generation


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which a chat is not.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
