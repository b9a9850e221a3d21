"""Chat templates of a tokenizer: conversations become token ids."""

from collections.abc import Callable, Mapping, Sequence
from inspect import isroutine
from typing import Any, ClassVar

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.tokenization.chat_rendering import render_chat
from modelwright.tokenization.json_schema import get_json_schema

logger = get_logger(__name__)


class ChatTemplateMixin:
    """`apply_chat_template` of every tokenizer."""

    chat_template: str | dict[str, str] | None
    is_fast: ClassVar[bool]

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
        tools: list[dict[str, Any] | Callable[..., Any]] | None = None,
        documents: list[dict[str, str]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        padding: Any = False,
        truncation: Any = False,
        max_length: int | None = None,
        return_tensors: Any = None,
        return_dict: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the ids (or with tokenize=False the text) of a conversation, or of a list of conversations.

        add_generation_prompt: end where the assistant's answer begins. continue_final_message: end with the text of the
        last message, so that it is continued. return_dict: a BatchEncoding instead of the ids.
        return_assistant_tokens_mask: with a field `assistant_masks`, 1 for each token of the template's
        `{% generation %}` blocks (fast tokenizers only). tools: JSON schemas of functions, or functions with type hints
        and a docstring. documents: {"title": ..., "text": ...} each. kwargs: further variables of the template.
        Raises InputError.
        """
        where = f"{type(self).__name__}.apply_chat_template"
        mask = return_assistant_tokens_mask
        if return_dict and not tokenize:
            raise InputError(f"{where}: return_dict=True needs tokenize=True: text alone has no fields.")
        if mask and not (return_dict and self.is_fast):
            raise InputError(f"{where}: return_assistant_tokens_mask=True needs return_dict=True and a fast tokenizer.")
        if continue_final_message and (add_generation_prompt or mask):
            raise InputError(
                f"{where}: continue_final_message=True goes with neither add_generation_prompt, which begins a new "
                "message, nor return_assistant_tokens_mask."
            )
        batched, conversations = _conversations(where, conversation)
        schemas = None if tools is None else [_tool(where, each) for each in tools]
        if documents is not None and not all(isinstance(each, Mapping) for each in documents):
            raise InputError(f"{where}: expected documents as dictionaries with 'title' and 'text', got {documents!r}.")
        variables = {
            **getattr(self, "special_tokens_map", {}),
            "tools": schemas,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            **kwargs,
        }
        template = self.get_chat_template(chat_template, tools)
        rendered = [
            render_chat(
                where, template, chat, continue_final_message=continue_final_message, track_assistant=mask, **variables
            )
            for chat in conversations
        ]
        texts = [each.text for each in rendered] if batched else rendered[0].text
        if not tokenize:
            return texts
        call: Any = self
        encoded = call(
            texts,
            add_special_tokens=False,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
            **(tokenizer_kwargs or {}),
        )
        if mask:
            spans = [each.spans for each in rendered]
            if not any(spans):
                logger.warning_once(f"{where}: the chat template has no {{% generation %}} block: all masks are 0.")
            nested = batched or return_tensors or "overflow_to_sample_mapping" in encoded
            rows = encoded.get("overflow_to_sample_mapping", range(len(spans)))
            masks = [_tokens_in(each, spans[row]) for each, row in zip(encoded.encodings, rows, strict=True)]
            encoded["assistant_masks"] = masks if nested else masks[0]
            encoded.convert_to_tensors(return_tensors)
        return encoded if return_dict else encoded["input_ids"]

    def encode_message_with_chat_template(
        self, message: Mapping[str, Any], conversation_history: Sequence[Mapping[str, Any]] | None = None, **kwargs: Any
    ) -> list[int]:
        """Return the ids that `message` adds to those of the messages before it.

        Where a template changes what came before, ids are taken from the first difference on. Keywords and errors are
        those of `apply_chat_template`, but for add_generation_prompt.
        """
        if "add_generation_prompt" in kwargs:
            raise InputError(
                f"{type(self).__name__}.encode_message_with_chat_template: add_generation_prompt is not possible here: "
                "add the prompt's ids yourself."
            )
        history = list(conversation_history or ())
        whole: list[int] = self.apply_chat_template([*history, message], **kwargs)
        if not history:
            return whole
        before = self.apply_chat_template(history, **kwargs)
        same = min(len(before), len(whole))
        return whole[next((at for at in range(same) if before[at] != whole[at]), same) :]


def _conversations(where: str, given: Any) -> tuple[bool, list[Any]]:
    """Return whether `given` is a list of conversations, and the conversations."""
    given = getattr(given, "messages", given)
    if not isinstance(given, (list, tuple)) or not given:
        raise InputError(f"{where}: expected a list of messages, got {given!r}.")
    batched = isinstance(given[0], (list, tuple)) or hasattr(given[0], "messages")
    chats = [getattr(chat, "messages", chat) for chat in (given if batched else [given])]
    for number, chat in enumerate(chats):
        if not isinstance(chat, (list, tuple)) or not all(isinstance(message, Mapping) for message in chat):
            raise InputError(f"{where}: conversation {number}: expected a list of messages, got {chat!r}.")
    return batched, chats


def _tool(where: str, tool: Any) -> Mapping[str, Any]:
    if isinstance(tool, Mapping):
        return tool
    if isroutine(tool):
        return get_json_schema(tool)
    raise InputError(f"{where}: expected tools as JSON schemas (dictionaries) or functions, got {tool!r}.")


def _tokens_in(encoding: Any, spans: list[tuple[int, int]]) -> list[int]:
    """Return 1 for each token that holds a character of the `spans`."""
    return [int(any(start < last and first < end for first, last in spans)) for start, end in encoding.offsets]
