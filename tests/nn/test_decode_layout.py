import torch
from torch import nn

from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.models.llama.modeling_llama import LlamaForCausalLM
from modelwright.nn.decode_layout import lay_out_for_decoding


def test_the_layout_changes_and_nothing_else(tmp_path):
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        eos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = torch.tensor([[3, 4, 5]])
    logits, tokens = model(ids).logits, model.generate(ids, max_new_tokens=5)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert lay_out_for_decoding(model) == 2 * 7 + 1
    assert lay_out_for_decoding(model) == 0
    assert model.lm_head.weight.stride() == (1, 50)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    torch.testing.assert_close(model(ids).logits, logits)
    assert torch.equal(model.generate(ids, max_new_tokens=5), tokens)
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, strict=True)
    for name, tensor in state.items():
        assert torch.equal(loaded.state_dict()[name], tensor)
        assert torch.equal(model.state_dict()[name], tensor)
    assert lay_out_for_decoding(model, enable=False) == 15
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_half_precision_stays():
    assert lay_out_for_decoding(nn.Linear(3, 4, dtype=torch.bfloat16)) == 0
