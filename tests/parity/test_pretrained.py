"""The base class against transformers 4.57.1: one third-party model file run on both, and the small helpers."""

import types

import pytest
import torch
import transformers

from modelwright.pretrained.module_utils import ModuleUtilsMixin

pytestmark = pytest.mark.parity

# As somebody published it; BASE is the only line that a migration changes.
SOURCE = """
import torch
from torch import nn


class NoteConfig(PretrainedConfig):
    model_type = "note"

    def __init__(self, vocab_size=13, hidden_size=6, num_hidden_layers=3, initializer_range=0.3, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.initializer_range = initializer_range


class NoteLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size)
        self.gate = nn.Parameter(torch.ones(config.hidden_size))

    def forward(self, hidden, mask):
        pooled = (torch.softmax(mask, dim=-1).squeeze(1) @ hidden) if mask is not None else hidden
        return self.LayerNorm(hidden + torch.tanh(self.dense(pooled)) * self.gate)


class NotePreTrainedModel(PreTrainedModel):
    config_class = NoteConfig
    base_model_prefix = "note"

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(mean=0.0, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.bias.data.zero_()
            module.weight.data.fill_(1.0)
        elif isinstance(module, NoteLayer):
            module.gate.data.fill_(0.5)


class NoteModel(NotePreTrainedModel):
    def __init__(self, config, add_pooling_layer=True):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([NoteLayer(config) for _ in range(config.num_hidden_layers)])
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.register_buffer("position_ids", torch.arange(8).expand((1, -1)), persistent=False)
        self.register_buffer("steps", torch.zeros(3))
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def set_input_embeddings(self, value):
        self.words = value

    def forward(self, input_ids, attention_mask=None):
        mask = None
        if attention_mask is not None:
            mask = self.get_extended_attention_mask(attention_mask, input_ids.shape)
            if not self.config.is_decoder:
                mask = mask.expand(-1, -1, input_ids.shape[1], -1)
        hidden = self.words(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden


class NoteForMaskedLM(NotePreTrainedModel):
    _tied_weights_keys = ["decoder.weight", "decoder.bias"]

    def __init__(self, config):
        super().__init__(config)
        self.note = NoteModel(config, add_pooling_layer=False)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.decoder.bias = self.bias
        self.post_init()

    def _tie_weights(self):
        self.decoder.bias = self.bias

    def get_output_embeddings(self):
        return self.decoder

    def set_output_embeddings(self, new_embeddings):
        self.decoder = new_embeddings

    def forward(self, input_ids, attention_mask=None):
        return self.decoder(self.note(input_ids, attention_mask))
"""

IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def run(imports):
    module = types.ModuleType("third_party")
    exec(imports + SOURCE, module.__dict__)
    return module


@pytest.fixture(scope="module")
def ours():
    return run(
        "from modelwright.config.configuration import PretrainedConfig\n"
        "from modelwright.pretrained.modeling import PreTrainedModel\n"
    )


@pytest.fixture(scope="module")
def theirs():
    return run("from transformers import PretrainedConfig, PreTrainedModel\n")


@pytest.fixture(params=["ours to theirs", "theirs to ours"])
def sides(request, ours, theirs):
    """The side that writes and the side that reads."""
    return (ours, theirs) if request.param == "ours to theirs" else (theirs, ours)


def assert_same(left, right):
    left, right = left.state_dict(), right.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("is_decoder", [False, True])
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "1kB"}, {"safe_serialization": False}, {"variant": "fp16"}])
def test_a_checkpoint_of_either_side(sides, tmp_path, is_decoder, options):
    writer, reader = sides
    model = writer.NoteForMaskedLM(writer.NoteConfig(is_decoder=is_decoder)).eval()
    model.bias.data.uniform_()
    model.save_pretrained(tmp_path, **options)
    variant = {"variant": options["variant"]} if "variant" in options else {}
    loaded, info = reader.NoteForMaskedLM.from_pretrained(tmp_path, output_loading_info=True, **variant)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same(model, loaded)
    assert loaded.decoder.weight is loaded.note.words.weight
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS, MASK), model(IDS, MASK), rtol=0, atol=0)


def test_the_loading_info_is_the_same(ours, theirs, tmp_path):
    theirs.NoteForMaskedLM(theirs.NoteConfig()).save_pretrained(tmp_path / "head")
    theirs.NoteModel(theirs.NoteConfig()).save_pretrained(tmp_path / "base")
    for source, name in [("head", "NoteModel"), ("base", "NoteForMaskedLM")]:
        infos = []
        for side in (ours, theirs):
            torch.manual_seed(0)
            _, info = getattr(side, name).from_pretrained(tmp_path / source, output_loading_info=True)
            # Upstream lists a tied weight that is missing under all its names, we under the one that is kept.
            infos.append({key: sorted(set(value) - {"decoder.bias"}) for key, value in info.items()})
        assert infos[0] == infos[1]


def test_the_same_seed_gives_the_same_new_model(ours, theirs):
    models = []
    for side in (ours, theirs):
        torch.manual_seed(5)
        models.append(side.NoteForMaskedLM(side.NoteConfig()))
    assert_same(*models)


def test_the_index_is_byte_identical(ours, theirs, tmp_path):
    model = theirs.NoteForMaskedLM(theirs.NoteConfig())
    model.save_pretrained(tmp_path / "theirs", max_shard_size="1kB")
    ours.NoteForMaskedLM.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours", max_shard_size="1kB")
    name = "model.safetensors.index.json"
    assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    assert {p.name for p in (tmp_path / "theirs").iterdir()} <= {p.name for p in (tmp_path / "ours").iterdir()}


@pytest.mark.parametrize("dtype", ["auto", torch.bfloat16, None])
def test_dtypes(ours, theirs, tmp_path, dtype):
    theirs.NoteForMaskedLM(theirs.NoteConfig()).half().save_pretrained(tmp_path)
    left, right = (side.NoteForMaskedLM.from_pretrained(tmp_path, dtype=dtype) for side in (ours, theirs))
    assert_same(left, right)
    assert left.get_memory_footprint() == right.get_memory_footprint()
    assert str(left.config.dtype) == str(right.config.dtype).removeprefix("torch.")


def test_sizes_and_costs(ours, theirs):
    left, right = (side.NoteForMaskedLM(side.NoteConfig()) for side in (ours, theirs))
    batch = {"input_ids": IDS}
    assert left.estimate_tokens(batch) == right.estimate_tokens(batch)
    for flag in (True, False):
        assert left.num_parameters(exclude_embeddings=flag) == right.num_parameters(exclude_embeddings=flag)
        assert left.floating_point_ops(batch, flag) == right.floating_point_ops(batch, flag)
        assert left.get_memory_footprint(flag) == right.get_memory_footprint(flag)


class Bare(torch.nn.Module, ModuleUtilsMixin):
    def __init__(self, is_decoder):
        super().__init__()
        self.config = types.SimpleNamespace(is_decoder=is_decoder)
        self.weight = torch.nn.Parameter(torch.ones(1))


@pytest.mark.parametrize("is_decoder", [False, True])
def test_masks(is_decoder):
    config = transformers.BertConfig(
        hidden_size=4, num_attention_heads=2, num_hidden_layers=1, intermediate_size=4, is_decoder=is_decoder
    )
    left, right = Bare(is_decoder), transformers.BertModel(config)
    full = torch.ones(2, 4, 4).tril()
    longer = torch.tensor([[0, 1, 1, 1, 1, 1]] * 2)
    for mask in (MASK, full, *([longer] if is_decoder else [])):
        expected = right.get_extended_attention_mask(mask, (2, 4))
        assert torch.equal(left.get_extended_attention_mask(mask, (2, 4)), expected)
    for mask in (MASK, full):
        assert torch.equal(left.invert_attention_mask(mask), right.invert_attention_mask(mask))
    for head_mask in (torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0], [0.5, 1.0]])):
        for chunked in (False, True):
            assert torch.equal(left.get_head_mask(head_mask, 2, chunked), right.get_head_mask(head_mask, 2, chunked))
    assert left.get_head_mask(None, 2) == right.get_head_mask(None, 2)
