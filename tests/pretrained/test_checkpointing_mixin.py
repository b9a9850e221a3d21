"""Gradient checkpointing of models that were written for transformers 4.x."""

import pytest
import torch
from torch import nn

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import InputError
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
from modelwright.pretrained.modeling import PreTrainedModel


class Config(PretrainedConfig):
    model_type = "checkpointed"


class Model(PreTrainedModel):
    """As 4.35 and later: the base model has the attribute and calls the function in its own loop."""

    config_class = Config
    supports_gradient_checkpointing = True

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.gradient_checkpointing = False
        self.post_init()

    def forward(self, x):
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = self._gradient_checkpointing_func(layer.__call__, x)
            else:
                x = layer(x)
        return x


class OldModel(Model):
    """As before 4.35: a hook is called with every module."""

    def _set_gradient_checkpointing(self, module, value=False):
        if isinstance(module, OldModel):
            module.gradient_checkpointing = value
            module._gradient_checkpointing_func = lambda call, *args: call(*args)


@pytest.mark.parametrize("kind", [Model, OldModel])
def test_models_of_the_4_kind(kind):
    model = kind(Config()).train()
    assert not model.is_gradient_checkpointing
    x = torch.randn(2, 4, requires_grad=True)
    model(x).sum().backward()
    expected, x.grad = x.grad, None
    calls = []
    model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    model(x).sum().backward()
    assert torch.equal(x.grad, expected)
    assert len(calls) == (2 if kind is Model else 1)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_a_model_without_layers_to_recompute_says_so(toys):
    model = toys.ToyModel(toys.ToyConfig())
    assert not model.supports_gradient_checkpointing
    for switch in (model.gradient_checkpointing_enable, model.set_gradient_checkpointing):
        with pytest.raises(InputError, match="ToyModel has no layers that can be recomputed"):
            switch()


def test_kernels_of_models_of_the_4_kind(toys):
    model = toys.ToyModel(toys.ToyConfig())
    assert model.config._attn_implementation == "eager"
    with pytest.raises(InputError, match="ToyModel cannot run attn_implementation='sdpa'; expected one of eager"):
        model.set_attn_implementation("sdpa")
    assert model.config._attn_implementation == "eager"

    class Capable(toys.ToyModel):
        _supports_sdpa = True

    assert Capable(toys.ToyConfig()).config._attn_implementation == "sdpa"
    with pytest.raises(InputError, match="cannot run attn_implementation='sdpa'"):
        toys.ToyModel(toys.ToyConfig(attn_implementation="sdpa"))


def test_kernels_of_sub_configs(toys):
    class Whole(PretrainedConfig):
        model_type = "whole"
        sub_configs = {"text_config": toys.ToyConfig}

        def __init__(self, **kwargs):
            self.text_config = toys.ToyConfig()
            super().__init__(**kwargs)

    class Text(toys.ToyModel):
        _supports_attention_backend = True

    class WholeModel(PreTrainedModel):
        config_class = Whole
        _supports_attention_backend = True

        def __init__(self, config):
            super().__init__(config)
            self.text = Text(config.text_config)
            self.post_init()

    model = WholeModel.from_config(Whole(), attn_implementation={"text_config": "eager"})
    assert model.config._attn_implementation == "sdpa"
    assert model.text.config._attn_implementation == "eager"
    model.set_attn_implementation({"": "eager", "text_config": "flex_attention"})
    assert model.config._attn_implementation == "eager"
    assert model.text.config._attn_implementation == "flex_attention"
    model.set_attn_implementation("sdpa")
    assert model.text.config._attn_implementation == "sdpa"
    with pytest.raises(InputError, match="got 'vision_config'"):
        model.set_attn_implementation({"text_config": "eager", "vision_config": "eager"})
    assert model.text.config._attn_implementation == "sdpa"


def test_a_config_of_early_4x_switches_it_on():
    config = GPT2Config(n_embd=8, n_layer=2, n_head=2, gradient_checkpointing=True)
    model = GPT2LMHeadModel(config)
    assert model.is_gradient_checkpointing
    assert "gradient_checkpointing" not in model.config.to_dict()
    assert not GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=2, n_head=2)).is_gradient_checkpointing
