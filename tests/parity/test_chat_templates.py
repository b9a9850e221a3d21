"""apply_chat_template beside transformers 4.57.1: text, ids and masks, over templates of the kinds that models have."""

import random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast as TheirTokenizer
from transformers.utils import get_json_schema as their_json_schema

from modelwright.core.errors import InputError
from modelwright.tokenization.fast_tokenizer import PreTrainedTokenizerFast
from modelwright.tokenization.json_schema import get_json_schema

pytestmark = pytest.mark.parity

CHATML = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
STRIPPING = """{{ bos_token }}{% for message in messages %}
{% if message['role'] == 'user' %}[INST] {{ message['content'] | trim }} [/INST]{% elif message['role'] == 'system' %}
<<SYS>>{{ message['content'].strip() }}<</SYS>>
{% else %} {{ message['content'] | trim }}{{ eos_token }}{% endif %}{% if loop.index > 3 %}{% break %}{% endif %}
{% endfor %}"""
TOOLS = """{% if tools %}{% for tool in tools %}{{ tool | tojson(indent=2) }}
{% endfor %}{% endif %}{% for document in documents or [] %}{{ document.title }}: {{ document.text }}
{% endfor %}{% macro turn(message) %}<{{ message.role }}>{{ message.content }}{{ extra }}{% endmacro %}
{% for message in messages %}{{ turn(message) }}{% endfor %}"""
GENERATION = """{% for message in messages %}{% if message.role == 'assistant' %}a:{% generation %}{{ message.content }}
{% endgeneration %}{% else %}u:{{ message.content }}
{% endif %}{% endfor %}"""
BLOCKS = "{% for m in messages %}{{ m.role }}:{% for b in m.content %}{{ b.text }}|{% endfor %}{% endfor %}"


def backend():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, "th", "the", "in", "Ġt", "Ġthe"])}
    merges = [("t", "h"), ("th", "e"), ("i", "n"), ("Ġ", "t"), ("Ġt", "h")][:4]
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = ByteLevel()
    return made


ROLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
OURS, THEIRS = (kind(tokenizer_object=backend(), **ROLES) for kind in (PreTrainedTokenizerFast, TheirTokenizer))
TEXT = st.text(st.sampled_from("the in\n .é🙂<s>{}"), max_size=12)
CHAT = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}),
    min_size=1,
    max_size=5,
)


def weather(
    place: str, days: int = 3, units: Literal["C", "F"] = "C", tags: list[str] | None = None
) -> dict[str, float]:
    """Say what the weather will be.

    It may be wrong.

    Args:
        place: The place,
            by name.
        days: How many days (choices: ["1", "3"])
        units: The unit
        tags: What else to say

    Returns:
        A number for each day.
    """
    return {place: float(days)}


def pick(either: int | str, pair: tuple[int, str], nested: dict[str, list[int]] | None, anything: object) -> None:
    """Pick one.

    Args:
        either: One of two kinds
        pair: Two values
        nested: Lists by name
        anything: What else
    """


@settings(max_examples=60, deadline=None)
@given(chat=CHAT, template=st.sampled_from([CHATML, STRIPPING, TOOLS, GENERATION]), prompt=st.booleans())
def test_text_and_ids(chat, template, prompt):
    kwargs = {"chat_template": template, "add_generation_prompt": prompt, "extra": "!"}
    assert OURS.apply_chat_template(chat, tokenize=False, **kwargs) == THEIRS.apply_chat_template(
        chat, tokenize=False, **kwargs
    )
    assert OURS.apply_chat_template(chat, **kwargs) == THEIRS.apply_chat_template(chat, **kwargs)


@settings(max_examples=30, deadline=None)
@given(chats=st.lists(CHAT, min_size=1, max_size=3), side=st.sampled_from(["left", "right"]))
def test_batches(chats, side):
    kwargs = {
        "chat_template": CHATML, "padding": True, "truncation": True, "max_length": 40, "return_dict": True,
        "return_tensors": "np", "tokenizer_kwargs": {"padding_side": side},
    }  # fmt: skip
    ours, theirs = OURS.apply_chat_template(chats, **kwargs), THEIRS.apply_chat_template(chats, **kwargs)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)


@settings(max_examples=80, deadline=None)
@given(chat=CHAT, template=st.sampled_from([CHATML, STRIPPING, TOOLS]))
def test_continue_final_message(chat, template):
    kwargs = {"chat_template": template, "continue_final_message": True}
    try:
        expected = THEIRS.apply_chat_template(chat, tokenize=False, **kwargs)
    except ValueError:
        with pytest.raises(InputError, match="leaves out or changes the end of the final message"):
            OURS.apply_chat_template(chat, tokenize=False, **kwargs)
        return
    assert OURS.apply_chat_template(chat, tokenize=False, **kwargs) == expected
    assert OURS.apply_chat_template(chat, **kwargs) == THEIRS.apply_chat_template(chat, **kwargs)


def test_continue_the_last_text_block():
    chat = [{"role": "assistant", "content": [{"type": "text", "text": "the "}, {"type": "image"}]}]
    kwargs = {"chat_template": BLOCKS, "continue_final_message": True, "tokenize": False}
    assert OURS.apply_chat_template(chat, **kwargs) == THEIRS.apply_chat_template(chat, **kwargs) == "assistant:the "
    assert chat[0]["content"][0]["text"] == "the "


@settings(max_examples=60, deadline=None)
@given(chats=st.lists(CHAT, min_size=1, max_size=2), tensors=st.booleans())
def test_assistant_masks(chats, tensors):
    """But for a last character of several tokens, of which theirs misses all but the first: so ASCII only."""
    chats = [[message | {"content": message["content"].encode("ascii", "ignore").decode() or "in"} for message in chat]
             for chat in chats]  # fmt: skip
    kwargs = {"chat_template": GENERATION, "return_dict": True, "return_assistant_tokens_mask": True}
    if tensors:
        kwargs |= {"return_tensors": "np", "padding": True}
        THEIRS.padding_side = OURS.padding_side = "right"
    asked = chats if len(chats) > 1 else chats[0]
    ours, theirs = OURS.apply_chat_template(asked, **kwargs), THEIRS.apply_chat_template(asked, **kwargs)
    masks = [each["assistant_masks"] for each in (ours, theirs)]
    if tensors:
        masks = [mask.tolist() for mask in masks]
    assert masks[0] == masks[1]


def test_assistant_masks_of_characters_of_several_tokens():
    chat = [{"role": "user", "content": "🙂"}, {"role": "assistant", "content": "the 🙂"}]
    template = GENERATION.replace("\n{% endgeneration", "{% endgeneration")
    encoded = OURS.apply_chat_template(
        chat, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [index for index, mask in zip(encoded.input_ids, encoded.assistant_masks, strict=True) if mask]
    assert OURS.decode(marked) == "the 🙂"


def test_tools_and_documents():
    chat = [{"role": "user", "content": "in the end"}]
    tools = [weather, pick, {"type": "function", "function": {"name": "é"}}]
    documents = [{"title": "the", "text": "é"}]
    kwargs = {"chat_template": TOOLS, "tools": tools, "documents": documents, "tokenize": False}
    assert OURS.apply_chat_template(chat, **kwargs) == THEIRS.apply_chat_template(chat, **kwargs)
    for tool in (weather, pick):
        assert get_json_schema(tool) == their_json_schema(tool)


def test_templates_by_name():
    templates = {"default": CHATML, "tool_use": TOOLS, "other": STRIPPING}
    chat = [{"role": "user", "content": "in"}]
    for tokenizer in (OURS, THEIRS):
        tokenizer.chat_template = templates
    try:
        for kwargs in ({}, {"tools": [weather]}, {"chat_template": "other"}, {"chat_template": "other", "tools": []}):
            kwargs = kwargs | {"tokenize": False}
            assert OURS.apply_chat_template(chat, **kwargs) == THEIRS.apply_chat_template(chat, **kwargs)
    finally:
        for tokenizer in (OURS, THEIRS):
            tokenizer.chat_template = None


@pytest.mark.parametrize("template", [CHATML, STRIPPING, TOOLS])
def test_messages_one_by_one(template):
    chosen = random.Random(0)
    chat = [{"role": chosen.choice(["user", "assistant"]), "content": "the end in "[at:]} for at in range(5)]
    for at in range(len(chat)):
        one = [
            each.encode_message_with_chat_template(chat[at], chat[:at], chat_template=template)
            for each in (OURS, THEIRS)
        ]
        assert one[0] == one[1]
