"""The documented methods: their parameters' names, order and defaults, word for word from the document of 4.37.

A method of ours may take more, after those and with defaults, so that a call written for 4.x means what it meant.
"""

import inspect

import pytest
import torch

from modelwright.pretrained.modeling import PreTrainedModel
from modelwright.pretrained.module_utils import ModuleUtilsMixin

REQUIRED = inspect.Parameter.empty

# "PreTrainedModel" of the document; parameters that are None there are "Optional = None".
MODEL_METHODS = {
    "get_input_embeddings": {},
    "get_memory_footprint": {"return_buffers": True},
    "get_output_embeddings": {},
    "gradient_checkpointing_disable": {},
    "gradient_checkpointing_enable": {"gradient_checkpointing_kwargs": None},
    "init_weights": {},
    "post_init": {},
    "prune_heads": {"heads_to_prune": REQUIRED},
    "register_for_auto_class": {"auto_class": "AutoModel"},
    "resize_token_embeddings": {"new_num_tokens": None, "pad_to_multiple_of": None},
    "reverse_bettertransformer": {},
    "save_pretrained": {
        "save_directory": REQUIRED,
        "is_main_process": True,
        "state_dict": None,
        "save_function": torch.save,
        "push_to_hub": False,
        "max_shard_size": "5GB",
        "safe_serialization": True,
        "variant": None,
        "token": None,
        "save_peft_format": True,
    },
    "set_input_embeddings": {"value": REQUIRED},
    "tie_weights": {},
    "to_bettertransformer": {},
    "warn_if_padding_and_no_attention_mask": {"input_ids": REQUIRED, "attention_mask": REQUIRED},
}
# "ModuleUtilsMixin" of the document.
UTILITY_METHODS = {
    "add_memory_hooks": {},
    "estimate_tokens": {"input_dict": REQUIRED},
    "floating_point_ops": {"input_dict": REQUIRED, "exclude_embeddings": True},
    "get_extended_attention_mask": {
        "attention_mask": REQUIRED,
        "input_shape": REQUIRED,
        "device": None,
        "dtype": None,
    },
    "get_head_mask": {"head_mask": REQUIRED, "num_hidden_layers": REQUIRED, "is_attention_chunked": False},
    "invert_attention_mask": {"encoder_attention_mask": REQUIRED},
    "num_parameters": {"only_trainable": False, "exclude_embeddings": False},
    "reset_memory_hooks_state": {},
}
DOCUMENTED = [(PreTrainedModel, name, expected) for name, expected in {**MODEL_METHODS, **UTILITY_METHODS}.items()]
DOCUMENTED += [(ModuleUtilsMixin, name, expected) for name, expected in UTILITY_METHODS.items()]


def check(owner, name, expected):
    method = inspect.getattr_static(owner, name)
    function = method.__func__ if isinstance(method, classmethod | staticmethod) else method
    parameters = list(inspect.signature(function).parameters.values())
    own = [each for each in parameters if each.name not in ("self", "cls")]
    positional = [each for each in own if each.kind is each.POSITIONAL_OR_KEYWORD]
    found = {each.name: each.default for each in positional[: len(expected)]}
    assert list(found.items()) == list(expected.items()), f"{owner.__name__}.{name}"
    more = [
        each
        for each in own
        if each.name not in expected and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    assert all(each.default is not REQUIRED for each in more), f"{owner.__name__}.{name} needs more than documented"


@pytest.mark.parametrize(("owner", "name", "expected"), DOCUMENTED, ids=lambda value: getattr(value, "__name__", value))
def test_documented_methods(owner, name, expected):
    check(owner, name, expected)


def test_save_pretrained_takes_the_keywords_of_push_to_hub():
    parameters = inspect.signature(PreTrainedModel.save_pretrained).parameters.values()
    assert any(each.kind is each.VAR_KEYWORD for each in parameters)


def test_every_model_keeps_them(row):
    """A subclass that overrides a method must not take parameters away."""
    model_class = row.model_class()
    for _, name, expected in DOCUMENTED:
        check(model_class, name, expected)
