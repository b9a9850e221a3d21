"""`to_bettertransformer`: the real tokens alone go through the encoder, and their states stay what they were."""

import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.models.bert import modeling_bert as bert
from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.gpt2.backbone import GPT2Model
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
IDS = torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 6 + [0] * 3, [1] * 9, [0] * 5 + [1] * 4, [1, 1, 0, 1, 0, 0, 1, 1, 0]])
SEEN = MASK.bool()


def make(name="BertModel", **config):
    torch.manual_seed(0)
    return getattr(bert, name)(BertConfig(**{**SMALL, **config})).eval()


def assert_close(left, right):
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def tokens_in_layers(model):
    """A list that grows by the number of tokens that each feed-forward is given."""
    found = []
    for layer in model.base_model.encoder.layer:
        layer.intermediate.register_forward_pre_hook(lambda _, args: found.append(args[0].shape[0] * args[0].shape[1]))
    return found


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("fields", [{}, {"chunk_size_feed_forward": 5}])
def test_states_are_the_same_and_padding_costs_nothing(kernel, fields):
    wanted = make()(IDS, attention_mask=MASK, output_hidden_states=True, head_mask=torch.tensor([1.0, 0, 1, 0.5]))
    model = make(attn_implementation=kernel, **fields)
    assert model.to_bettertransformer() is model and model.is_bettertransformer
    counted = tokens_in_layers(model)
    found = model(IDS, attention_mask=MASK, output_hidden_states=True, head_mask=torch.tensor([1.0, 0, 1, 0.5]))
    assert sum(counted) == 2 * MASK.sum()
    assert_close(found.pooler_output[:2], wanted.pooler_output[:2])
    for left, right in zip(found.hidden_states, wanted.hidden_states, strict=True):
        assert_close(left, right * MASK[..., None])
    assert torch.equal(found.last_hidden_state, found.hidden_states[-1])


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForTokenClassification"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients_are_the_same(name, checkpointing):
    labels = (IDS % 2).masked_fill(~SEEN, -100)
    gradients = []
    for convert in (False, True):
        model = make(name).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        if convert:
            counted = tokens_in_layers(model.to_bettertransformer())
        model(IDS, attention_mask=MASK, labels=labels).loss.backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert sum(counted) == (4 if checkpointing else 2) * MASK.sum()
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-4, atol=1e-5, msg=key)


def test_slots_for_quantizers_see_the_real_tokens_only():
    wanted, model = make()(IDS, attention_mask=MASK)[0], make().to_bettertransformer()
    seen = []

    class Note(torch.nn.Module):
        def forward(self, x):
            seen.append(x.shape)
            return x

    own = model.encoder.layer[0].attention
    own.self.matmul_a_input_quantizer = own.output.add_residual_input_quantizer = Note()
    assert_close(model(IDS, attention_mask=MASK)[0][SEEN], wanted[SEEN])
    assert seen == [*((1, 4, length, length) for length in MASK.sum(-1)), (1, MASK.sum(), 16)]


def test_what_cannot_run_unpadded_runs_as_before():
    plain, model = make(), make().to_bettertransformer()
    counted = tokens_in_layers(model)
    for keywords in (
        {"attention_mask": MASK, "output_attentions": True},
        {"attention_mask": SEEN[:, None, None]},
        {"attention_mask": torch.ones_like(MASK)},
        {},
    ):
        assert_close(model(IDS, **keywords)[0][SEEN], plain(IDS, **keywords)[0][SEEN])
        assert counted[-1] == IDS.numel()


def test_the_way_back_and_saving(tmp_path):
    model = make()
    wanted = model(IDS, attention_mask=MASK)[0]
    model.to_bettertransformer()
    with pytest.raises(InputError, match=r"BertModel.save_pretrained: .*call reverse_bettertransformer\(\) before"):
        model.save_pretrained(tmp_path / "converted")
    assert not (tmp_path / "converted").exists()
    assert model.reverse_bettertransformer() is model and not model.is_bettertransformer
    assert torch.equal(model(IDS, attention_mask=MASK)[0], wanted)
    model.save_pretrained(tmp_path)
    assert torch.equal(bert.BertModel.from_pretrained(tmp_path)(IDS, attention_mask=MASK)[0], wanted)


@pytest.mark.parametrize("fields", [{"is_decoder": True}, {"position_embedding_type": "relative_key"}])
def test_encoders_that_must_not(fields):
    with pytest.raises(NotImplementedError, match="BertModel.to_bettertransformer: BertModel has no encoder that runs"):
        make(**fields).to_bettertransformer()


def test_others_refuse_by_name():
    model = GPT2Model(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(NotImplementedError, match="GPT2Model has no encoder that runs unpadded; those of BERT"):
        model.to_bettertransformer()
