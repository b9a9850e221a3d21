"""What models say about themselves, and the 4.x helpers for masks."""

import types

import pytest
import torch
from torch import nn

from modelwright.core.errors import InputError
from modelwright.pretrained.module_utils import ModuleUtilsMixin


class Model(nn.Module, ModuleUtilsMixin):
    main_input_name = "input_ids"

    def __init__(self, is_decoder=False, dtype=torch.float32):
        super().__init__()
        self.config = types.SimpleNamespace(is_decoder=is_decoder)
        self.register_buffer("steps", torch.zeros(5, dtype=torch.long))
        self.head = nn.Linear(3, 7, dtype=dtype)
        self.words = nn.Embedding(7, 3, dtype=dtype)
        self.head.weight = self.words.weight

    def forward(self, hidden):
        return self.head(hidden)


def test_tied_parameters_count_once():
    model = Model()
    assert model.num_parameters() == 7 * 3 + 7
    assert model.num_parameters(exclude_embeddings=True) == 7
    model.head.bias.requires_grad = False
    assert model.num_parameters(only_trainable=True) == 7 * 3
    assert model.num_parameters(only_trainable=True, exclude_embeddings=True) == 0


def test_memory_footprint_in_bytes():
    assert Model().get_memory_footprint() == (7 * 3 + 7) * 4 + 5 * 8
    assert Model(dtype=torch.bfloat16).get_memory_footprint(return_buffers=False) == (7 * 3 + 7) * 2


def test_dtype_and_device():
    model = Model(dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.device == torch.device("cpu")
    assert model.to("meta").device == torch.device("meta")

    class Bare(nn.Module, ModuleUtilsMixin):
        pass

    assert (Bare().dtype, Bare().device) == (torch.float32, torch.device("cpu"))


def test_cost_is_six_operations_per_token_and_parameter():
    model, batch = Model(), {"input_ids": torch.ones(2, 5, dtype=torch.long)}
    assert model.estimate_tokens(batch) == 10
    assert model.floating_point_ops(batch) == 6 * 10 * 7
    assert model.floating_point_ops(batch, exclude_embeddings=False) == 6 * 10 * 28


def test_tokens_without_the_main_input_are_said_once(said):
    assert [Model().estimate_tokens({"inputs_embeds": torch.ones(1)}) for _ in range(2)] == [0, 0]
    expected = "Model.estimate_tokens: expected the main input 'input_ids' among inputs_embeds; counting 0 tokens"
    assert said() == [expected]


LOWEST = torch.finfo(torch.float32).min


def test_inverted_mask_of_both_ranks():
    mask = torch.tensor([[1, 1, 0]])
    assert torch.equal(Model().invert_attention_mask(mask), torch.tensor([[[[0, 0, LOWEST]]]]))
    full = torch.tensor([[[1, 0], [1, 1]]])
    assert torch.equal(Model().invert_attention_mask(full), torch.tensor([[[[0, LOWEST], [0, 0]]]]))
    assert Model(dtype=torch.float16).invert_attention_mask(mask).min() == torch.finfo(torch.float16).min
    with pytest.raises(InputError, match=r"expected the shape \(batch, keys\) or \(batch, queries, keys\), got \(3,\)"):
        Model().invert_attention_mask(mask[0])


def test_extended_mask_of_an_encoder_hides_padding_and_of_a_decoder_also_the_future():
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    encoder = Model().get_extended_attention_mask(mask, (2, 3)) == 0
    assert encoder.shape == (2, 1, 1, 3)
    assert encoder[0, 0, 0].tolist() == [False, True, True]
    decoder = Model(is_decoder=True).get_extended_attention_mask(mask, (2, 3), dtype=torch.float64)
    assert decoder.dtype == torch.float64
    assert (decoder == 0)[0, 0].tolist() == [[False, False, False], [False, True, False], [False, True, True]]
    assert (decoder == 0)[1, 0].tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_longer_mask_is_a_prefix_that_every_query_sees():
    mask = torch.tensor([[0, 1, 1, 1, 1]])
    grown = Model.create_extended_attention_mask_for_decoder((1, 2), mask)
    assert grown[0, 0].tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    # The last query of the whole sequence sees the same as the only query of a cached step.
    whole = Model.create_extended_attention_mask_for_decoder((1, 5), mask)
    step = Model.create_extended_attention_mask_for_decoder((1, 1), mask)
    assert torch.equal(whole[:, :, -1:], step)


def test_extended_mask_of_rank_three_stays_as_it_is():
    mask = torch.tensor([[[1, 0], [0, 1]]])
    extended = Model(is_decoder=True).get_extended_attention_mask(mask, (1, 2))
    assert (extended == 0).int().tolist() == [mask.tolist()]
    message = r"for an input of shape \(1, 2\), got \(1, 1, 2, 2\)"
    with pytest.raises(InputError, match=message):
        Model().get_extended_attention_mask(mask[None], (1, 2))


def test_head_mask_shapes():
    model = Model(dtype=torch.bfloat16)
    assert model.get_head_mask(None, 2) == [None, None]
    one = model.get_head_mask(torch.tensor([1, 0]), 3)
    assert one.shape == (3, 1, 2, 1, 1)
    assert one.dtype == torch.bfloat16
    assert one[2].flatten().tolist() == [1, 0]
    each = model.get_head_mask(torch.tensor([[1, 0], [0, 1]]), 2, is_attention_chunked=True)
    assert each.shape == (2, 1, 2, 1, 1, 1)
    assert each[1].flatten().tolist() == [0, 1]
    with pytest.raises(InputError, match=r"expected the shape \(heads,\) or \(3, heads\), .* got \(2, 2\)"):
        model.get_head_mask(torch.ones(2, 2), 3)


def test_memory_hooks_add_up_and_reset(monkeypatch):
    model = Model()
    readings = iter([100, 130, 500, 510, 0, 5, 0, 0])
    monkeypatch.setattr("modelwright.pretrained.memory_hooks._resident_bytes", lambda: next(readings))
    model.add_memory_hooks()
    model.add_memory_hooks()
    model.head(torch.ones(1, 3))
    model.head(torch.ones(1, 3))
    assert model.head.mem_rss_diff == 40
    assert model.mem_rss_diff == 0
    model.reset_memory_hooks_state()
    assert model.head.mem_rss_diff == 0
    model.head(torch.ones(1, 3))
    assert model.head.mem_rss_diff == 5


def test_memory_hooks_measure_the_process():
    model = Model()
    model.add_memory_hooks()
    model(torch.ones(1, 3))
    assert model.mem_rss_pre_forward > 1_000_000
    assert model.mem_rss_diff == model.mem_rss_post_forward - model.mem_rss_pre_forward
