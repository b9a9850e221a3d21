"""Which class belongs to which model_type. Names only: a family is imported when it is asked for."""

import importlib
from collections.abc import Mapping
from typing import Any

from modelwright import _public
from modelwright.core.errors import ConfigError, InputError, nearest
from modelwright.core.registry import Registry

CONFIGS = {
    "bert": "BertConfig",
    "encoder-decoder": "EncoderDecoderConfig",
    "gpt2": "GPT2Config",
    "llama": "LlamaConfig",
    "prophetnet": "ProphetNetConfig",
    "qdqbert": "QDQBertConfig",
    "reformer": "ReformerConfig",
    "t5": "T5Config",
}
MODELS = {
    "AutoModel": {
        "bert": "BertModel",
        "gpt2": "GPT2Model",
        "llama": "LlamaModel",
        "prophetnet": "ProphetNetModel",
        "qdqbert": "QDQBertModel",
        "reformer": "ReformerModel",
        "t5": "T5Model",
    },
    "AutoModelForCausalLM": {
        "bert": "BertLMHeadModel",
        "qdqbert": "QDQBertLMHeadModel",
        "gpt2": "GPT2LMHeadModel",
        "llama": "LlamaForCausalLM",
        "prophetnet": "ProphetNetForCausalLM",
        "reformer": "ReformerModelWithLMHead",
    },
    "AutoModelForMaskedLM": {
        "bert": "BertForMaskedLM",
        "qdqbert": "QDQBertForMaskedLM",
        "reformer": "ReformerForMaskedLM",
    },
    "AutoModelForMultipleChoice": {"bert": "BertForMultipleChoice", "qdqbert": "QDQBertForMultipleChoice"},
    "AutoModelForNextSentencePrediction": {
        "bert": "BertForNextSentencePrediction",
        "qdqbert": "QDQBertForNextSentencePrediction",
    },
    "AutoModelForPreTraining": {
        "bert": "BertForPreTraining",
        "gpt2": "GPT2LMHeadModel",
        "llama": "LlamaForCausalLM",
        "reformer": "ReformerModelWithLMHead",
        "t5": "T5ForConditionalGeneration",
    },
    "AutoModelForQuestionAnswering": {
        "bert": "BertForQuestionAnswering",
        "qdqbert": "QDQBertForQuestionAnswering",
        "gpt2": "GPT2ForQuestionAnswering",
        "llama": "LlamaForQuestionAnswering",
        "reformer": "ReformerForQuestionAnswering",
        "t5": "T5ForQuestionAnswering",
    },
    "AutoModelForSeq2SeqLM": {
        "encoder-decoder": "EncoderDecoderModel",
        "prophetnet": "ProphetNetForConditionalGeneration",
        "t5": "T5ForConditionalGeneration",
    },
    "AutoModelForSequenceClassification": {
        "bert": "BertForSequenceClassification",
        "qdqbert": "QDQBertForSequenceClassification",
        "gpt2": "GPT2ForSequenceClassification",
        "llama": "LlamaForSequenceClassification",
        "reformer": "ReformerForSequenceClassification",
        "t5": "T5ForSequenceClassification",
    },
    "AutoModelForTokenClassification": {
        "bert": "BertForTokenClassification",
        "qdqbert": "QDQBertForTokenClassification",
        "gpt2": "GPT2ForTokenClassification",
        "llama": "LlamaForTokenClassification",
        "t5": "T5ForTokenClassification",
    },
}
TOKENIZERS = {
    "bert": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "llama": "LlamaTokenizer",
    "prophetnet": "ProphetNetTokenizer",
    "qdqbert": "BertTokenizer",
    "reformer": "ReformerTokenizer",
    "t5": "T5Tokenizer",
}
FAST_TOKENIZERS = {
    "bert": "BertTokenizerFast",
    "gpt2": "GPT2TokenizerFast",
    "llama": "LlamaTokenizerFast",
    "qdqbert": "BertTokenizerFast",
    "reformer": "ReformerTokenizerFast",
    "t5": "T5TokenizerFast",
}


class AutoTable:
    """An open table {model_type: class} of the auto class `owner`; an entry may be the public name of a class."""

    def __init__(self, owner: str, names: Mapping[str, str]) -> None:
        self.owner = owner
        self._entries: Registry[Any] = Registry(f"model_type of {owner}", names)

    def __contains__(self, model_type: object) -> bool:
        return model_type in self._entries

    def known(self) -> list[str]:
        """Return the model types of the table, sorted."""
        return sorted(self._entries)

    def find(self, model_type: str, place: str) -> Any:
        """Return the class for `model_type`; raise ConfigError that begins with `place` and lists what there is."""
        if model_type not in self._entries:
            known = self.known()
            raise ConfigError(
                f"{place}: {self.owner} has no class for model_type {model_type!r}; it knows "
                f"{', '.join(known) or 'none'}. Add one with {self.owner}.register().{nearest(model_type, known)}"
            )
        entry = self._entries[model_type]
        return load_public(entry) if isinstance(entry, str) else entry

    def entry(self, model_type: str) -> Any:
        """Return the class for `model_type`, or its name while it is not imported."""
        return self._entries[model_type]

    def add(self, model_type: str, value: type, exist_ok: bool) -> None:
        """Enter a class; raise InputError if there is one already and `exist_ok` is False, or for an empty name."""
        if not model_type:
            raise InputError(f"{self.owner}.register: expected a config class with a model_type, got {model_type!r}")
        self._entries.register(model_type, value, exist_ok=exist_ok)

    def classes(self) -> list[Any]:
        """Return the classes that were registered, without those that are only named."""
        return [entry for entry in self._entries.values() if not isinstance(entry, str)]


def load_public(name: str) -> Any:
    """Import and return the public object `name` of modelwright."""
    home = _public.find(name)
    assert home is not None, f"{name} is not in the name table"
    return getattr(importlib.import_module(home), name)
