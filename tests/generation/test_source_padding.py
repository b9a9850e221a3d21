"""`generate` lets the encoder leave the source's padding out where nobody looks at the states of padding."""

import pytest
import torch

from modelwright import (
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    ProphetNetConfig,
    ProphetNetForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)
from modelwright.attention.packing import Packing

SOURCE = torch.randint(3, 50, (3, 40), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(40) < torch.tensor([[40], [7], [1]])).long()
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def bert():
    configs = (BertConfig(vocab_size=50, **BERT) for _ in range(2))
    ids = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
    return EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(*configs, **ids))


def t5():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=50, decoder_start_token_id=0, **sizes))


def prophetnet():
    sizes = {"hidden_size": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64}
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    heads = {"num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2}
    return ProphetNetForConditionalGeneration(ProphetNetConfig(vocab_size=50, **sizes, **layers, **heads))


@pytest.fixture(params=[bert, t5, prophetnet])
def model(request):
    torch.manual_seed(0)
    model = request.param().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.5)
    return model


@pytest.fixture
def packed(monkeypatch):
    """The numbers of tokens of the batches that were packed."""
    numbers, pack = [], Packing.pack
    monkeypatch.setattr(Packing, "pack", lambda self, x: numbers.append(len(self.index)) or pack(self, x))
    return numbers


def scores(model, **options):
    kept = {"return_dict_in_generate": True, "output_logits": True}
    output = model.generate(attention_mask=MASK, max_new_tokens=4, **kept, **options)
    return torch.stack(output.logits)


@pytest.mark.parametrize("beams", [1, 3])
def test_the_decoder_gets_the_same(model, packed, beams):
    with torch.no_grad():
        states = model.get_encoder()(SOURCE, attention_mask=MASK)
    wanted = scores(model, encoder_outputs=states, num_beams=beams)
    assert not packed
    torch.testing.assert_close(scores(model, input_ids=SOURCE, num_beams=beams), wanted, rtol=1e-4, atol=1e-5)
    assert packed == [40 + 7 + 1]


def test_all_states_are_there_for_who_looks_at_them(model, packed):
    scores(model, input_ids=SOURCE, output_hidden_states=True)
    seen = []
    layer = next(module for module in model.get_encoder().modules() if isinstance(module, torch.nn.Linear))
    handle = layer.register_forward_hook(lambda _module, _args, output: seen.append(tuple(output.shape[:2])))
    scores(model, input_ids=SOURCE)
    handle.remove()
    layer.train()
    scores(model, input_ids=SOURCE)
    scores(model.train(), input_ids=SOURCE)
    assert seen == [(3, 40)] and not packed


def test_layers_from_elsewhere_get_all_tokens(model, packed):
    class RangeOfAll(torch.nn.Linear):
        """Rounds by the range of all tokens, as dynamic quantization does."""

        def forward(self, input):
            step = input.abs().max() / 127
            return super().forward((input / step).round() * step)

    for layer in model.get_encoder().modules():
        if type(layer) is torch.nn.Linear:
            layer.__class__ = RangeOfAll
    with torch.no_grad():
        states = model.get_encoder()(SOURCE, attention_mask=MASK)
    torch.testing.assert_close(scores(model, input_ids=SOURCE), scores(model, encoder_outputs=states), rtol=0, atol=0)
    assert not packed
