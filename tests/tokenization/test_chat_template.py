"""What a chat template may say and see, and what is refused."""

import json

import pytest

from modelwright.core import logging as mw_logging
from modelwright.core.errors import InputError
from modelwright.models.auto.tokenization_auto import AutoTokenizer
from modelwright.models.bert.tokenization_bert import BertTokenizer
from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast
from modelwright.utils import get_json_schema

CHAT = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
PLAIN = "{% for m in messages %}{{ m.content }} . {% endfor %}"
MARKED = (
    "{% macro said(m) %}{% if m.role == 'assistant' %}{% generation %}{{ m.content | upper }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endmacro %}{% for m in messages %}{{ said(m) }} . {% endfor %}"
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "."]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{word}\n" for word in WORDS))
    return str(path)


@pytest.fixture
def tokenizer(vocabulary):
    return BertTokenizerFast(vocabulary, chat_template=PLAIN)


def test_assistant_masks_inside_macros(tokenizer):
    kwargs = {"chat_template": MARKED, "return_dict": True, "return_assistant_tokens_mask": True}
    encoded = tokenizer.apply_chat_template(CHAT, **kwargs)
    assert tokenizer.decode(encoded.input_ids) == "the cat. sat."
    assert encoded.assistant_masks == [0, 0, 0, 1, 0]
    batch = tokenizer.apply_chat_template([CHAT, CHAT[1:]], padding=True, return_tensors="np", **kwargs)
    assert batch.assistant_masks.tolist() == [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0]]
    cut = tokenizer.apply_chat_template(
        CHAT, truncation=True, max_length=3, tokenizer_kwargs={"return_overflowing_tokens": True}, **kwargs
    )
    assert cut.assistant_masks[:2] == [[0, 0, 0], [1, 0]]
    # Without a mask the marks are not there at all.
    assert tokenizer.apply_chat_template(CHAT, chat_template=MARKED, tokenize=False) == "the cat . SAT . "
    told = tokenizer.apply_chat_template(CHAT, chat_template="{{ messages | tojson }}", tokenize=False)
    assert json.loads(told) == CHAT


def test_a_template_without_generation_blocks_says_so(tokenizer, caplog):
    mw_logging.forget_once()
    encoded = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    assert encoded.assistant_masks == [0, 0, 0, 0, 0]
    assert "has no {% generation %} block" in caplog.text


def test_continue_final_message(tokenizer):
    kwargs = {"tokenize": False, "continue_final_message": True}
    assert tokenizer.apply_chat_template(CHAT, **kwargs) == "the cat . sat"
    with pytest.raises(InputError, match="leaves out or changes the end of the final message"):
        tokenizer.apply_chat_template(CHAT, chat_template="{{ messages[0].content }}", **kwargs)
    with pytest.raises(InputError, match="expected text in the final message, got None"):
        tokenizer.apply_chat_template([{"role": "assistant"}], **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"return_dict": True, "tokenize": False}, "return_dict=True needs tokenize=True"),
        ({"return_assistant_tokens_mask": True}, "needs return_dict=True and a fast tokenizer"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "goes with neither add_generation_prompt"),
        ({"documents": ["text"]}, r"expected documents as dictionaries .* got \['text'\]"),
        ({"tools": ["tool"]}, "expected tools as JSON schemas .* or functions, got 'tool'"),
        ({"chat_template": "{% generation %}"}, "chat template cannot be used"),
    ],
)
def test_what_cannot_be(tokenizer, kwargs, message):
    with pytest.raises(InputError, match=message):
        tokenizer.apply_chat_template(CHAT, **kwargs)


def test_a_slow_tokenizer_has_no_masks(vocabulary):
    tokenizer = BertTokenizer(vocabulary, chat_template=PLAIN)
    assert tokenizer.decode(tokenizer.apply_chat_template(CHAT)) == "the cat. sat."
    with pytest.raises(InputError, match="a fast tokenizer"):
        tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)


def test_messages_one_by_one(tokenizer):
    ids = tokenizer.apply_chat_template(CHAT)
    first = tokenizer.encode_message_with_chat_template(CHAT[0])
    assert first + tokenizer.encode_message_with_chat_template(CHAT[1], CHAT[:1]) == ids
    with pytest.raises(InputError, match="add the prompt's ids yourself"):
        tokenizer.encode_message_with_chat_template(CHAT[0], add_generation_prompt=True)


def test_templates_in_a_folder(tokenizer, tmp_path):
    folder = tmp_path / "saved"
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template == PLAIN
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(MARKED)
    assert AutoTokenizer.from_pretrained(folder).chat_template == {"default": PLAIN, "tool_use": MARKED}


def undocumented(number: int) -> None: ...


def unhinted(number) -> None:
    """Say a number.

    Args:
        number: The number
    """


def untold(number: int) -> None:
    """Say a number."""


def single(number: tuple[int]) -> None:
    """Say a number.

    Args:
        number: The number
    """


def misquoted(number: int) -> None:
    """Say a number.

    Args:
        number: The number (choices: [one])
    """


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (undocumented, "expected a docstring"),
        (unhinted, "'number' has no type hint"),
        (untold, "'number' is not described"),
        (single, "expected a tuple of two types or more"),
        (misquoted, r"expected choices as a JSON list, got '\[one\]'"),
    ],
)
def test_functions_without_a_schema(function, message):
    with pytest.raises(InputError, match=f"get_json_schema: '{function.__name__}'.*{message}"):
        get_json_schema(function)
