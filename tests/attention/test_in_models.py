"""Attention in a real model: a registered kernel with padding, cache and checkpointing; kernels that agree."""

import pytest
import torch

from modelwright.attention.caches import StaticCache
from modelwright.attention.interface import AttentionInterface
from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.models.llama.modeling_llama import LlamaForCausalLM

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
PADDED = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])


def ten_lines(module, query, key, value, attention_mask, scaling=None, **kwargs):
    rows = []
    for row in range(query.shape[0]):
        groups = query.shape[1] // key.shape[1]
        k, v = (x[row].repeat_interleave(groups, dim=0) for x in (key, value))
        scores = query[row] @ k.transpose(-1, -2) * scaling
        scores = scores.masked_fill(~attention_mask[row], torch.finfo(scores.dtype).min)
        rows.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.stack(rows), None


@pytest.fixture
def model():
    """A function that makes the same small Llama for a kernel."""

    def make(attention, **fields):
        sizes = {"vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
        config = LlamaConfig(**{**sizes, **heads, "initializer_range": 0.4, **fields}, attn_implementation=attention)
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()

    AttentionInterface.register("ten_lines", ten_lines)
    yield make
    AttentionInterface._global_mapping.pop("ten_lines")


IDS = torch.randint(1, 31, (2, 6), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("attention", ["ten_lines", "sdpa", "flex_attention"])
@pytest.mark.parametrize("fields", [{}, {"sliding_window": 3}])
def test_kernels_agree_with_padding_and_cache(attention, fields, model):
    eager, other = model("eager", **fields), model(attention, **fields)
    seen = PADDED.bool()
    with torch.no_grad():
        wanted = eager(IDS, attention_mask=PADDED).logits
        assert torch.allclose(other(IDS, attention_mask=PADDED).logits[seen], wanted[seen], atol=1e-5)
        first = other(IDS[:, :4], attention_mask=PADDED[:, :4], use_cache=True)
        cache = first.past_key_values
        for step in (4, 5):
            last = other(IDS[:, step : step + 1], attention_mask=PADDED[:, : step + 1], past_key_values=cache)
            assert torch.allclose(last.logits[:, 0], wanted[:, step], atol=1e-5)


@pytest.mark.parametrize("attention", ["ten_lines", "sdpa"])
def test_gradients_under_checkpointing_agree(attention, model):
    labels = IDS.masked_fill(PADDED == 0, -100)
    labels[0, 2] = -100  # what padding predicts is not part of the task
    gradients = []
    for name, checkpointing in (("eager", False), (attention, False), (attention, True)):
        network = model(name).train()
        if checkpointing:
            network.gradient_checkpointing_enable()
        network(IDS, attention_mask=PADDED, labels=labels, use_cache=False).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5) and torch.allclose(
        gradients[1], gradients[2], atol=1e-6
    )


@pytest.mark.parametrize("attention", ["eager", "sdpa", "ten_lines"])
@pytest.mark.parametrize("fields", [{}, {"sliding_window": 3}])
def test_a_static_cache_equals_no_cache(attention, fields, model):
    network = model(attention, **fields)
    with torch.no_grad():
        wanted = network(IDS, use_cache=False).logits
        cache = StaticCache(network.config, max_cache_len=9)
        found = [network(IDS[:, :3], past_key_values=cache).logits]
        found += [network(IDS[:, i : i + 1], past_key_values=cache).logits for i in range(3, 6)]
    assert torch.allclose(torch.cat(found, dim=1), wanted, atol=1e-5)


def test_packed_rows_equal_the_sequences_alone(model):
    for attention in ("eager", "sdpa", "flex_attention"):
        network = model(attention)
        positions = torch.tensor([[0, 1, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]])
        with torch.no_grad():
            packed = network(IDS, position_ids=positions).logits
            parts = [network(IDS[:1, :2]).logits, network(IDS[:1, 2:]).logits]
            assert torch.allclose(packed[:1], torch.cat(parts, dim=1), atol=1e-5)
            assert torch.allclose(packed[1:], network(IDS[1:]).logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_short_text_after_a_long_one_reads_as_before(kind, model):
    lists = {"short_factor": [1.0] * 2, "long_factor": [4.0] * 2, "original_max_position_embeddings": 8}
    scaling = {"rope_type": kind, **({"factor": 4.0} if kind == "dynamic" else lists)}
    network = model("sdpa", rope_scaling=scaling, max_position_embeddings=8 if kind == "dynamic" else 32)
    long = torch.randint(1, 31, (1, 20))
    with torch.no_grad():
        before = network(IDS).logits
        network(long)
        assert torch.equal(network(IDS).logits, before)
