"""The registries: lookup, global and local, defaults, errors, and a custom attention in ten lines."""

import pytest
import torch

from modelwright.attention.eager import eager_attention_forward
from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, AttentionInterface, implementation_of
from modelwright.attention.mask_interface import AttentionMaskInterface, mask_function_for
from modelwright.attention.masks import create_causal_mask
from modelwright.core.optional import is_available


@pytest.fixture
def registered():
    """Registers a kernel for one test."""
    names = []

    def register(name, function, mask=None):
        names.append(name)
        AttentionInterface.register(name, function)
        if mask is not None:
            AttentionMaskInterface.register(name, mask)

    yield register
    for name in names:
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name, None)


FLASH = ["flash_attention_2"] if is_available("flash_attn") else []


def test_the_documented_names_are_there():
    assert AttentionInterface().valid_keys() == ["eager", "sdpa", "flex_attention", *FLASH]
    assert sorted(AttentionMaskInterface()) == ["eager", "flash_attention_2", "flex_attention", "sdpa"]


@pytest.mark.skipif(bool(FLASH), reason="flash-attn is installed")
def test_flash_attention_without_its_package_says_how_to_get_it(config):
    with pytest.raises(KeyError, match="needs the package flash-attn, which is not installed: pip install flash-attn"):
        implementation_of(config(_attn_implementation="flash_attention_2"))


def test_register_is_seen_by_all_and_setting_by_one(registered):
    one, other = AttentionInterface(), AttentionInterface()
    registered("mine", eager_attention_forward)
    assert one["mine"] is other["mine"] is eager_attention_forward
    one["sdpa"] = one["special"] = eager_attention_forward
    assert one["sdpa"] is eager_attention_forward and other["sdpa"] is not eager_attention_forward
    assert "special" in one and "special" not in other and len(one) == len(other) + 1
    del one["sdpa"]
    assert one["sdpa"] is other["sdpa"]
    with pytest.raises(
        KeyError, match="'mine' is not set on this instance, so it cannot be deleted here; set here: sp"
    ):
        del one["mine"]


def test_the_two_registries_are_apart(registered):
    registered("mine", eager_attention_forward)
    assert "mine" not in AttentionMaskInterface()


def test_an_unknown_name_lists_the_valid_ones(config):
    expected = (
        "'spda' is not a valid attention implementation registered in the `AttentionInterface`: expected one of "
        f"{', '.join(['eager', *FLASH, 'flex_attention', 'sdpa'])}. Did you mean 'sdpa'?"
    )
    for call in (
        lambda: ALL_ATTENTION_FUNCTIONS["spda"],
        lambda: ALL_ATTENTION_FUNCTIONS.get_interface("spda", print),
        lambda: implementation_of(config(_attn_implementation="spda")),
        lambda: create_causal_mask(config(_attn_implementation="spda"), torch.zeros(1, 2, 3)),
    ):
        with pytest.raises(KeyError) as caught:
            call()
        assert str(caught.value).startswith(expected)
        assert isinstance(caught.value, ValueError)


def test_get_interface_eager_is_the_models_own_and_none_warns_once(said):
    def own():
        """A model's eager attention."""

    assert ALL_ATTENTION_FUNCTIONS.get_interface("eager", own) is own
    assert ALL_ATTENTION_FUNCTIONS.get_interface("eager") is eager_attention_forward
    assert ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", own) is not own
    assert said() == []
    assert ALL_ATTENTION_FUNCTIONS.get_interface(None, own) is own
    assert ALL_ATTENTION_FUNCTIONS.get_interface(None, own) is own
    assert len(said()) == 1 and "No attention implementation is chosen" in said()[0]
    local = AttentionInterface()
    local["eager"] = print
    assert local.get_interface("eager", own) is print


def test_sdpa_unless_said_otherwise(config):
    assert implementation_of(config(_attn_implementation=None)) == "sdpa"
    assert implementation_of(config(_attn_implementation="eager")) == "eager"


def test_a_custom_attention_without_a_mask_function_gets_sdpas_and_one_warning(registered, config, module, said):
    def plain(module, query, key, value, attention_mask, scaling=None, **kwargs):
        scores = query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
        weights = scores.masked_fill(~attention_mask, -1e9).softmax(-1)
        return (weights @ value).transpose(1, 2), weights

    registered("plain", plain)
    mine, reference = config(_attn_implementation="plain"), config(_attn_implementation="eager")
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    for padding in (None, torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])):
        mask = create_causal_mask(mine, torch.zeros(2, 5, 8), padding)
        assert mask.dtype == torch.bool  # never left out: `plain` does not know is_causal
        out = ALL_ATTENTION_FUNCTIONS[mine._attn_implementation](module, q, k, v, mask)[0]
        wanted = eager_attention_forward(module, q, k, v, create_causal_mask(reference, torch.zeros(2, 5, 8), padding))
        assert torch.allclose(out, wanted[0], atol=1e-6)
    assert len(said()) == 1 and "'plain' has no mask function, so it gets sdpa's: booleans" in said()[0]


def test_a_registered_mask_function_is_used_and_gets_both_versions_arguments(registered, config, said):
    seen = {}

    def mask(batch_size, cache_position, kv_length, kv_offset=0, mask_function=None, attention_mask=None, **kwargs):
        seen.update(kwargs, batch_size=batch_size, cache_position=cache_position, kv_length=kv_length)

    registered("mine", eager_attention_forward, mask)
    assert create_causal_mask(config(_attn_implementation="mine"), torch.zeros(2, 5, 8)) is None
    assert (seen["batch_size"], seen["cache_position"].tolist(), seen["kv_length"]) == (2, [0, 1, 2, 3, 4], 5)
    assert (seen["q_length"], seen["q_offset"], seen["dtype"]) == (5, 0, torch.float32)
    assert mask_function_for("mine") is mask
    assert said() == []
