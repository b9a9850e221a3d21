"""A forward reads no position from a tensor, so that it runs on meta and is exported, and no accelerator waits."""

import pytest
import torch

from modelwright import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel, T5Config, T5EncoderModel

IDS = torch.arange(1, 7).view(2, 3)
MODELS = {
    "bert": lambda: BertModel(
        BertConfig(
            vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=8,
        )
    ),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=8)),
    "llama": lambda: LlamaModel(
        LlamaConfig(
            vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=8,
        )
    ),
    "t5": lambda: T5EncoderModel(T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_forward_on_meta(name):
    with torch.device("meta"):
        model = MODELS[name]()
    assert model(IDS.to("meta")).last_hidden_state.shape == (2, 3, 8)


@pytest.mark.slow
def test_an_export():
    model, mask = MODELS["bert"]().eval(), torch.tensor([[1, 1, 0], [1, 1, 1]])
    exported = torch.export.export(model, (IDS,), {"attention_mask": mask}, strict=False).module()
    for other in (mask, torch.ones_like(mask)):
        expected = model(IDS, attention_mask=other).last_hidden_state
        torch.testing.assert_close(exported(IDS, attention_mask=other).last_hidden_state, expected)
