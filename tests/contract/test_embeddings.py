"""What every model must do when its vocabulary grows or shrinks, and when its embeddings are replaced."""

import pytest
import torch
from torch import nn

from modelwright.pretrained import tying


def first_output(model):
    with torch.no_grad():
        output = model(**model.dummy_inputs)
    return output if isinstance(output, torch.Tensor) else output[0]


@pytest.mark.parametrize("change", [10, -5])
@pytest.mark.parametrize("mean", [True, False], ids=["mean", "fresh"])
def test_resize_token_embeddings(model, tmp_path, change, mean):
    old = model.config.vocab_size
    size, kept = old + change, min(old, old + change)
    words, before, scores = model.get_input_embeddings(), model.get_input_embeddings().weight.clone(), None
    head = model.get_output_embeddings()
    scores = first_output(model)
    assert model.resize_token_embeddings(size, mean_resizing=mean) is words is model.get_input_embeddings()
    assert type(words) is nn.Embedding
    assert torch.equal(words.weight[:kept], before[:kept])
    assert model.config.vocab_size == model.base_model.config.vocab_size == words.num_embeddings == size
    after = first_output(model)
    if head is None:
        assert torch.equal(after, scores), "ids that are still there are embedded as before"
    else:
        assert model.get_output_embeddings() is head
        assert head.out_features == len(head.weight) == size
        assert after.shape == (*scores.shape[:-1], size)
        # Another width of the matrix product adds up in another order.
        torch.testing.assert_close(after[..., :kept], scores[..., :kept], rtol=0, atol=1e-6)
    model.save_pretrained(tmp_path)
    assert torch.equal(first_output(type(model).from_pretrained(tmp_path, strict=True)), after)


def test_padding_the_vocabulary_to_a_multiple(model):
    assert model.resize_token_embeddings(pad_to_multiple_of=48).num_embeddings % 48 == 0
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings
    assert first_output(model).isfinite().all()


def test_ties_hold_after_resizing(model):
    before = tying.tied_groups(model)
    model.resize_token_embeddings(70)
    assert tying.tied_groups(model) == before
    for kept, *others in before:
        assert all(model.get_parameter(name) is model.get_parameter(kept) for name in others)


def test_embeddings_can_be_replaced(model):
    words = model.get_input_embeddings()
    torch.manual_seed(0)
    new = nn.Embedding(words.num_embeddings, words.embedding_dim)
    model.set_input_embeddings(new)
    model.tie_weights()
    assert model.get_input_embeddings() is model.base_model.get_input_embeddings() is new
    assert first_output(model).isfinite().all()
    if model.get_output_embeddings() is not None:
        old = model.get_output_embeddings()
        head = nn.Linear(old.in_features, old.out_features, bias=old.bias is not None)
        model.set_output_embeddings(head)
        model.tie_weights()
        assert model.get_output_embeddings() is head
        # Of two models in one, the decoder's head is tied to the decoder's embeddings.
        words = new if model.config.model_type != "encoder-decoder" else model.decoder.get_input_embeddings()
        assert (head.weight is words.weight) == bool(tying.tied_pairs(model))
