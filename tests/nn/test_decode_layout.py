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


def test_few_rows_are_multiplied_by_the_weight_from_the_left():
    layer, hidden = nn.Linear(512, 7, bias=False), torch.randn(9, 1, 512)
    expected = layer(hidden).detach()
    products = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.mm.default:
                products.append(tuple(args[0].shape))
            return function(*args, **(kwargs or {}))

    def check(rows):
        products.clear()
        found = apply_to_few_rows(layer, hidden[:rows])
        assert found.is_contiguous()
        torch.testing.assert_close(found, expected[:rows])
        return products == [(7, 512)]

    with torch.no_grad(), Products():
        # One row, and more numbers than stay beside a core, go the usual way.
        assert [rows for rows in (1, 2, 8, 9) if check(rows)] == [2, 8]
        handle = layer.register_forward_hook(lambda _module, _inputs, output: output * 2)
        torch.testing.assert_close(apply_to_few_rows(layer, hidden[:4]), 2 * expected[:4])
        handle.remove()
        lay_out_for_decoding(layer)
        assert not check(4)
    lay_out_for_decoding(layer, enable=False)
    assert apply_to_few_rows(layer, hidden[:4]).requires_grad
