"""resize_token_embeddings, rule by rule, on the toy models; tests/contract has it for every model."""

import pytest
import torch
from torch import nn

from modelwright.core.errors import InputError

IDS = torch.tensor([[1, 2, 3]])


@pytest.fixture
def model(toys):
    return toys.ToyForCausalLM(toys.ToyConfig(vocab_size=11)).eval()


@pytest.fixture
def untied(toys):
    model = toys.ToyForCausalLM(toys.ToyConfig(vocab_size=11, tie_word_embeddings=False)).eval()
    nn.init.normal_(model.lm_head.bias)
    return model


def test_without_a_size_nothing_is_done(model):
    words = model.get_input_embeddings()
    before = words.weight
    assert model.resize_token_embeddings() is words
    assert words.weight is before


@pytest.mark.parametrize("size", [30, 5])
def test_tied_embeddings_head_bias_and_config(model, size):
    words, weight, before = model.toy.words, model.toy.words.weight, model.toy.words.weight.detach().clone()
    scores = model(IDS)
    assert model.resize_token_embeddings(size) is words
    assert model.toy.words is words
    assert words.weight is weight is model.lm_head.weight
    kept = min(size, 11)
    assert torch.equal(weight[:kept], before[:kept])
    assert words.num_embeddings == model.lm_head.out_features == len(model.lm_head.bias) == size
    assert model.config.vocab_size == size
    after = model(IDS)
    assert after.shape[-1] == size
    # Not to the last bit: a processor may add up a product of another width in another order.
    torch.testing.assert_close(after[..., :kept], scores[..., :kept])
    new = weight.detach()[kept:]
    torch.testing.assert_close(new, before.mean(0).expand_as(new), rtol=0, atol=1e-3)


def test_an_untied_head_and_its_bias_get_rows_of_their_own(untied):
    head, bias = untied.lm_head.weight.detach().clone(), untied.lm_head.bias.detach().clone()
    untied.resize_token_embeddings(14)
    assert untied.lm_head.weight is not untied.toy.words.weight
    assert torch.equal(untied.lm_head.weight[:11], head)
    assert torch.equal(untied.lm_head.bias[:11], bias)
    torch.testing.assert_close(untied.lm_head.weight[11:], head.mean(0).expand(3, -1), rtol=0, atol=1e-3)
    torch.testing.assert_close(untied.lm_head.bias[11:], bias.mean().expand(3), rtol=0, atol=1e-3)
    assert untied(IDS).shape == (1, 3, 14)


def test_new_rows_as_in_a_new_model(untied):
    untied.config.initializer_range = 100.0
    untied.resize_token_embeddings(300, mean_resizing=False)
    for weight in (untied.toy.words.weight, untied.lm_head.weight):
        assert 80 < weight[11:].std() < 120
    assert (untied.lm_head.bias[11:] == 0).all()


@pytest.mark.parametrize(
    ("new", "multiple", "expected"), [(None, 8, 16), (13, 8, 16), (16, 8, 16), (3, 4, 4), (128, 64, 128), (11, 11, 11)]
)
def test_sizes_are_rounded_up(model, new, multiple, expected):
    assert model.resize_token_embeddings(new, pad_to_multiple_of=multiple).num_embeddings == expected
    assert model.config.vocab_size == expected
    assert model(IDS if expected > 3 else IDS % 3).shape[-1] == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_and_what_is_trainable_stay(untied, dtype):
    untied.to(dtype)
    untied.toy.words.weight.requires_grad_(False)
    untied.lm_head.weight.requires_grad_(False)
    untied.resize_token_embeddings(20)
    assert {parameter.dtype for parameter in untied.parameters()} == {dtype}
    assert not untied.toy.words.weight.requires_grad
    assert not untied.lm_head.weight.requires_grad
    assert untied.lm_head.bias.requires_grad
    assert untied(IDS).isfinite().all()


def test_on_meta(toys):
    model = toys.ToyForCausalLM.from_config(toys.ToyConfig(), device="meta")
    model.resize_token_embeddings(20)
    assert model.toy.words.weight.is_meta
    assert model.lm_head.weight.shape == (20, 8)


def test_the_padding_row_is_forgotten_when_it_is_gone(model):
    model.toy.words.padding_idx = 10
    model.resize_token_embeddings(12)
    assert model.toy.words.padding_idx == 10
    model.resize_token_embeddings(10)
    assert model.toy.words.padding_idx is None


def test_a_bias_that_several_modules_share_stays_one(toys):
    model = toys.LegacyForMaskedLM(toys.LegacyConfig()).eval()
    nn.init.normal_(model.bias)
    model.resize_token_embeddings(17)
    assert model.decoder.bias is model.bias
    assert model.decoder.weight is model.encoder.words.weight
    assert model.bias.shape == (17,)
    model.resize_token_embeddings(9)
    assert model.decoder.bias is model.bias
    assert model(IDS).shape == (1, 3, 9)


def test_it_is_saved_and_loaded(model, toys, tmp_path):
    model.resize_token_embeddings(19)
    model.save_pretrained(tmp_path)
    loaded = toys.ToyForCausalLM.from_pretrained(tmp_path, strict=True)
    assert torch.equal(model(IDS), loaded(IDS))


def test_a_hook_on_the_embeddings_goes_on(model):
    seen = []
    model.toy.words.register_forward_hook(lambda *_: seen.append(1))
    model.resize_token_embeddings(19)
    model(IDS)
    assert seen == [1]


@pytest.mark.parametrize("value", [1.3, True, 0, -8, "8"])
def test_a_multiple_or_size_that_is_no_whole_number(model, value):
    for name in ("pad_to_multiple_of", "new_num_tokens"):
        with pytest.raises(InputError, match=rf"ToyForCausalLM.resize_token_embeddings: expected {name} .*{value!r}"):
            model.resize_token_embeddings(**{name: value})
    assert model.config.vocab_size == 11


def test_other_classes_than_embeddings_are_a_type_error(model):
    model.lm_head = nn.Conv1d(8, 11, 1)
    with pytest.raises(TypeError, match="expected the output embeddings to be an nn.Linear, got Conv1d; replace them"):
        model.resize_token_embeddings(12)
    assert model.toy.words.num_embeddings == 11
    model.set_input_embeddings(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="expected the input embeddings to be an nn.Embedding, got Linear; replace"):
        model.resize_token_embeddings(12)
