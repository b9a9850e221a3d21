"""Models that multiply with the weights of their linear layers themselves still call layers that do more than that."""

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.bert.modeling_bert import BertModel
from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.models.t5.modeling_t5 import T5ForConditionalGeneration

# Wide enough for the products that replace the layers' own.
BERT = {"hidden_size": 512, "num_hidden_layers": 1, "num_attention_heads": 8, "intermediate_size": 1024}
T5 = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_heads": 8, "num_layers": 1, "decoder_start_token_id": 0}


def bert(unpadded):
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=99, **BERT)).eval()
    ids = torch.randint(1, 99, (3, 12))
    mask = (torch.arange(12) < torch.tensor([[12], [5], [9]])).long()
    if unpadded:
        model.to_bettertransformer()
    return model, lambda: model(ids, attention_mask=mask).last_hidden_state * mask[..., None]


def t5(**options):
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=99, feed_forward_proj="gated-gelu", **T5)).eval()
    ids = torch.randint(1, 99, (3, 12))
    options = {"max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True, **options}
    return model, lambda: torch.stack(model.generate(ids, **options).logits)


CASES = {
    "BERT": lambda: bert(unpadded=False),
    "BERT, unpadded": lambda: bert(unpadded=True),
    "T5, greedy": lambda: t5(num_beams=1),
    "T5, beams": lambda: t5(num_beams=3),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]()


def linear_layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


@torch.no_grad()
def test_hooks_are_called_and_change_nothing_else(case):
    model, run = case
    expected, called = run(), set()
    layers = linear_layers(model)
    handles = [layer.register_forward_hook(lambda *_, name=name: called.add(name)) for name, layer in layers.items()]
    torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-4)
    assert called == set(layers)
    for handle in handles:
        handle.remove()
    seen = set()
    handle = register_module_forward_hook(lambda module, *_: seen.add(module))
    run()
    handle.remove()
    assert seen >= set(layers.values())


class Silent(nn.Linear):
    """A subclass with a forward of its own, as quantized layers have."""

    def forward(self, input):
        return 0 * super().forward(input)


@torch.no_grad()
def test_replaced_layers_are_called(case):
    model, run = case
    expected = run()
    for name, layer in linear_layers(model).items():
        if name == "pooler.dense":
            continue
        layer.__class__ = Silent
        assert not torch.allclose(run(), expected), name
        layer.__class__ = nn.Linear
    assert torch.equal(run(), expected)


def test_hooks_of_the_backward_are_called():
    model, run = bert(unpadded=True)
    called = set()
    layers = linear_layers(model.encoder)
    for name, layer in layers.items():
        layer.register_full_backward_hook(lambda *_, name=name: called.add(name))
    run().square().sum().backward()
    assert called == set(layers)
