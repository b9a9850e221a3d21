import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.models.llama.modeling_llama import LlamaForCausalLM
from modelwright.nn.decode_layout import apply_to_few_rows, lay_out_for_decoding


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


def test_a_large_vocabulary_is_scored_for_few_rows_as_for_one():
    head, hidden = nn.Linear(8, 8200, bias=False), torch.randn(5, 1, 8)
    expected = head(hidden)
    products = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.mm.default:
                products.append(tuple(args[0].shape))
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Products():
        for rows in (2, 5):
            found = apply_to_few_rows(head, hidden[:rows])
            assert found.is_contiguous()
            torch.testing.assert_close(found, expected[:rows])
        # The weight on the left reads it once; one row, weights that lie by inputs and hooks go the usual way.
        assert products == [(8200, 8), (8200, 8)]
        assert apply_to_few_rows(head, hidden[:1]).shape == (1, 1, 8200)
        seen = []
        head.register_forward_hook(lambda *_: seen.append(1))
        torch.testing.assert_close(apply_to_few_rows(head, hidden), expected)
        assert seen == [1]
        lay_out_for_decoding(head)
        torch.testing.assert_close(apply_to_few_rows(head, hidden), expected)
    assert apply_to_few_rows(head, hidden).requires_grad
    assert not [shape for shape in products[2:] if shape[0] == 8200]
