"""Chat templates: a conversation becomes text by a Jinja template that runs in a sandbox."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from modelwright.core.errors import InputError


def render_chat(where: str, template: str, conversation: Sequence[Mapping[str, Any]], **variables: Any) -> str:
    """Return the text of one conversation, a list of messages such as {"role": "user", "content": "Hi"}.

    The template sees `messages` and the variables, and `raise_exception`, `strftime_now` and the filter `tojson`.
    Raises InputError for a template that is wrong, refuses the conversation, or leaves the sandbox.
    """
    import jinja2

    try:
        return str(_compiled(template).render(messages=list(conversation), **variables))
    except jinja2.TemplateError as error:
        raise InputError(f"{where}: the chat template cannot be used: {error}.") from error
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{where}: the chat template does not take this conversation: {error}.") from error


@lru_cache(maxsize=32)
def _compiled(template: str) -> Any:
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which a chat is not.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplateMixin:
    """`apply_chat_template` of every tokenizer."""

    chat_template: str | dict[str, str] | None

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """Return the template: the named or given one, else "tool_use" with tools, else the default one.

        Raises InputError when there is none.
        """
        where = type(self).__name__
        own = self.chat_template
        if isinstance(own, dict):
            wanted = chat_template or ("tool_use" if tools is not None and "tool_use" in own else "default")
            if wanted in own:
                return own[wanted]
        if chat_template is not None:
            return chat_template
        if isinstance(own, str):
            return own
        known = f"; its templates are {', '.join(sorted(own))}" if own else ""
        raise InputError(f"{where} has no chat template{known}: set tokenizer.chat_template or pass chat_template.")

    def apply_chat_template(
        self,
        conversation: Any,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, str]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        padding: Any = False,
        truncation: Any = False,
        max_length: int | None = None,
        return_tensors: Any = None,
        return_dict: bool = False,
        tokenizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the ids (or with tokenize=False the text) of a conversation, or of a list of conversations.

        add_generation_prompt: end where the assistant's answer begins. return_dict: a BatchEncoding instead of the ids.
        tools: JSON schemas of functions. kwargs: further variables of the template. Raises InputError.
        """
        where = f"{type(self).__name__}.apply_chat_template"
        if not isinstance(conversation, (list, tuple)) or not conversation:
            raise InputError(f"{where}: expected a list of messages, got {conversation!r}.")
        batched = isinstance(conversation[0], (list, tuple))
        for number, chat in enumerate(conversation if batched else [conversation]):
            if not isinstance(chat, (list, tuple)) or not all(isinstance(message, Mapping) for message in chat):
                raise InputError(f"{where}: conversation {number}: expected a list of messages, got {chat!r}.")
        if tools is not None and not all(isinstance(tool, Mapping) for tool in tools):
            raise InputError(f"{where}: expected tools as JSON schemas (dictionaries), got {tools!r}.")
        template = self.get_chat_template(chat_template, tools)
        variables = {
            **getattr(self, "special_tokens_map", {}),
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            **kwargs,
        }
        texts = [
            render_chat(where, template, chat, **variables) for chat in (conversation if batched else [conversation])
        ]
        if not tokenize:
            return texts if batched else texts[0]
        call: Any = self
        encoded = call(
            texts if batched else texts[0],
            add_special_tokens=False,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
            **(tokenizer_kwargs or {}),
        )
        return encoded if return_dict else encoded["input_ids"]
