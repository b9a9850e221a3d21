"""The heads of the Reformer against transformers 4.57.1: scores, losses, gradients and checkpoints of either side."""

import copy

import pytest
import torch

from modelwright.models.reformer import modeling_reformer
from modelwright.models.reformer.configuration_reformer import ReformerConfig

pytestmark = pytest.mark.parity

SMALL = {
    "attention_head_size": 8,
    "attn_layers": ["local", "lsh", "lsh"],
    "axial_pos_embds_dim": [4, 12],
    "axial_pos_shape": [4, 8],
    "classifier_dropout": 0.0,
    "feed_forward_size": 32,
    "hash_seed": 3,
    "hidden_dropout_prob": 0.0,
    "hidden_size": 16,
    "initializer_range": 0.3,
    "is_decoder": False,
    "local_attention_probs_dropout_prob": 0.0,
    "local_attn_chunk_length": 8,
    "local_num_chunks_after": 1,
    "lsh_attn_chunk_length": 8,
    "max_position_embeddings": 32,
    "num_attention_heads": 2,
    "num_buckets": 4,
    "vocab_size": 50,
}
TOKENS = torch.randint(1, 50, (2, 32), generator=torch.Generator().manual_seed(1))
HEADS = {
    "ReformerForMaskedLM": ({}, {"labels": torch.where(TOKENS % 3 == 0, TOKENS, -100)}),
    "ReformerForSequenceClassification": ({"num_labels": 3}, {"labels": torch.tensor([2, 0])}),
    "ReformerForQuestionAnswering": (
        {},
        {"start_positions": torch.tensor([3, 40]), "end_positions": torch.tensor([5, 6])},
    ),
}
REGRESSION = ({"num_labels": 1}, {"labels": torch.tensor([0.3, -2.0])})
MULTI = ({"num_labels": 3}, {"labels": torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])})
CASES = [
    *((name, *case) for name, case in HEADS.items()),
    ("ReformerForSequenceClassification", *REGRESSION),
    ("ReformerForSequenceClassification", *MULTI),
]


def theirs_of(name, **changes):
    import transformers

    torch.manual_seed(0)
    config = transformers.ReformerConfig(**copy.deepcopy({**SMALL, **changes}))
    model = getattr(transformers, name)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # The biases too.
    return model


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


def assert_relative(ours, theirs, tolerance=1e-4):
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize(("name", "changes", "labels"), CASES)
def test_scores_losses_and_gradients_agree(tmp_path, name, changes, labels):
    theirs = theirs_of(name, **changes).train()
    ours, info = getattr(modeling_reformer, name).from_pretrained(
        saved(theirs, tmp_path), output_loading_info=True, strict=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    outputs = []
    for model in (ours.train(), theirs):
        output = model(TOKENS, **labels)
        output.loss.backward()
        outputs.append(output)
    assert list(outputs[0]) == list(outputs[1])
    for key in outputs[0]:
        assert_relative(outputs[0][key], outputs[1][key])
    gradients = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        expected = gradients[key].grad  # Some are zero but for rounding.
        assert (parameter.grad - expected).abs().max() <= 1e-3 * expected.abs().max() + 1e-6, key


@pytest.mark.parametrize("name", HEADS)
def test_padded_and_masked_rows_agree_in_evaluation(tmp_path, name):
    theirs = theirs_of(name).eval()
    ours = getattr(modeling_reformer, name).from_pretrained(saved(theirs, tmp_path))
    mask = torch.ones(2, 21, dtype=torch.long)
    mask[1, 15:] = 0
    with torch.no_grad():
        found, expected = (model(TOKENS[:, :21], attention_mask=mask) for model in (ours, theirs))
    for key in found:
        if name == "ReformerForSequenceClassification":
            assert_relative(found[key], expected[key])
        else:
            assert_relative(found[key][mask.bool()], expected[key][mask.bool()])


@pytest.mark.parametrize("name", HEADS)
def test_our_checkpoint_loads_there(tmp_path, name):
    import transformers

    torch.manual_seed(0)
    ours = getattr(modeling_reformer, name)(ReformerConfig(**copy.deepcopy(SMALL))).eval()
    ours.save_pretrained(tmp_path)
    theirs, info = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        for one, other in zip(ours(TOKENS).to_tuple(), theirs(TOKENS).to_tuple(), strict=True):
            assert_relative(one, other)


def test_language_model_output_names_agree():
    theirs = theirs_of("ReformerModelWithLMHead", is_decoder=True, local_num_chunks_after=0).eval()
    names = list(type(theirs(TOKENS)).__dataclass_fields__)
    assert list(modeling_reformer.ReformerModelWithLMHeadOutput._names()) == names
