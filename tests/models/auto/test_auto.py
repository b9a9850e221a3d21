"""The auto classes: which class they find, and what they say when there is none."""

import json

import pytest
import torch

from modelwright import _public
from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError, InputError, RepoError, UnknownArgumentError
from modelwright.models.auto import modeling_auto, tables
from modelwright.models.auto.configuration_auto import TABLE as CONFIG_TABLE
from modelwright.models.auto.configuration_auto import AutoConfig
from modelwright.models.auto.modeling_auto import AutoModel, AutoModelForCausalLM
from modelwright.models.auto.tokenization_auto import FAST_TABLE, AutoTokenizer
from modelwright.models.auto.tokenization_auto import TABLE as TOKENIZER_TABLE
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import ReformerModel, ReformerModelWithLMHead
from modelwright.pretrained.modeling import PreTrainedModel
from modelwright.tokenization.byte_tokenizer import ByteTokenizer

TINY = {
    "attention_head_size": 4,
    "attn_layers": ["local"],
    "axial_pos_embds_dim": [2, 2],
    "axial_pos_shape": [4, 4],
    "feed_forward_size": 4,
    "hidden_size": 4,
    "is_decoder": True,
    "local_attn_chunk_length": 4,
    "max_position_embeddings": 16,
    "num_attention_heads": 1,
    "vocab_size": 7,
}


class OwnConfig(PretrainedConfig):
    model_type = "own"


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(2, 2)
        self.post_init()


class OwnTokenizer(ByteTokenizer):
    pass


class OwnTokenizerFast(ByteTokenizer):
    pass


@pytest.fixture
def fresh(monkeypatch):
    """Whatever a test registers is forgotten afterwards."""
    for table in (CONFIG_TABLE, TOKENIZER_TABLE, FAST_TABLE, AutoModel.table, AutoModelForCausalLM.table):
        monkeypatch.setattr(table, "_entries", table._entries.local())


@pytest.fixture
def saved(tmp_path):
    model = ReformerModelWithLMHead(ReformerConfig(**TINY))
    model.save_pretrained(tmp_path)
    ByteTokenizer().save_pretrained(tmp_path)
    return model, tmp_path


def change_config(folder, name="config.json", **items):
    path = folder / name
    values = json.loads(path.read_text()) | items
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def test_every_name_of_the_tables_is_public_and_of_the_right_family():
    for model_type, name in tables.CONFIGS.items():
        assert tables.load_public(name).model_type == model_type
    for owner, names in tables.MODELS.items():
        assert issubclass(getattr(modeling_auto, owner), modeling_auto._AutoModelBase)
        for model_type, name in names.items():
            assert tables.load_public(name).config_class.model_type == model_type
    for name in tables.TOKENIZERS.values():
        assert _public.find(name) is not None


def test_config(saved):
    _, folder = saved
    for source in (folder, str(folder), folder / "config.json"):
        config = AutoConfig.from_pretrained(source, num_hashes=3)
        assert type(config) is ReformerConfig
        assert (config.hidden_size, config.num_hashes) == (4, 3)
    config, unused = AutoConfig.from_pretrained(folder, other=1, return_unused_kwargs=True)
    assert unused == {"other": 1}
    with pytest.raises(UnknownArgumentError, match="ReformerConfig has no attribute 'num_hash' to override"):
        AutoConfig.from_pretrained(folder, num_hash=1)
    assert AutoConfig.for_model("reformer", hidden_size=8, axial_pos_embds_dim=[4, 4]).hidden_size == 8
    with pytest.raises(
        ConfigError, match="AutoConfig.for_model: AutoConfig has no class for model_type 'refomer'; it kn"
    ):
        AutoConfig.for_model("refomer")


def test_models(saved):
    model, folder = saved
    ids = torch.tensor([[1, 2, 3, 4]])
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype="auto")
    assert type(loaded) is ReformerModelWithLMHead
    assert info["missing_keys"] == []
    assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)
    assert type(AutoModel.from_pretrained(folder)) is ReformerModel
    assert AutoModel.from_pretrained(folder, config=ReformerConfig(**TINY), num_hashes=2).config.num_hashes == 2
    assert type(AutoModel.from_config(model.config)) is ReformerModel
    assert AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_model_in_a_subfolder(saved, tmp_path):
    saved[0].save_pretrained(tmp_path / "outer" / "inner")
    assert type(AutoModel.from_pretrained(tmp_path / "outer", subfolder="inner")) is ReformerModel
    with pytest.raises(RepoError, match=r"config\.json"):
        AutoModel.from_pretrained(tmp_path / "outer")


@pytest.mark.parametrize("auto", [AutoConfig, AutoModel, AutoModelForCausalLM])
def test_unknown_and_absent_model_types_list_what_is_known(saved, auto):
    _, folder = saved
    change_config(folder, model_type="reformr")
    message = f"{folder}: {auto.__name__} has no class for model_type 'reformr'; it knows .*reformer.* mean 'reformer'"
    with pytest.raises(ConfigError, match=message):
        auto.from_pretrained(folder)
    change_config(folder, model_type=None)
    with pytest.raises(ConfigError, match=r"expected a model_type in config\.json, found none; add one of .*reformer"):
        auto.from_pretrained(folder)


@pytest.mark.parametrize("auto", [AutoConfig, AutoModel])
def test_code_of_a_checkpoint_is_never_run(saved, auto):
    _, folder = saved
    change_config(folder, auto_map={"AutoModel": "code.Model"})
    assert auto.from_pretrained(folder) is not None, "our own class for it needs no code"
    with pytest.raises(RepoError, match=r"there is no file 'code\.py'"):
        AutoModel.from_pretrained(folder, trust_remote_code=True)
    change_config(folder, model_type="own")
    with pytest.raises(
        InputError, match=f"{auto.__name__}: .* brings its own code .*, which is not run. Read it; if you"
    ):
        auto.from_pretrained(folder)
    with pytest.raises(InputError, match="expected trust_remote_code to be True, False or None, got 'yes'"):
        auto.from_pretrained(folder, trust_remote_code="yes")


def test_register(fresh, tmp_path):
    AutoConfig.register("own", OwnConfig)
    AutoModel.register(OwnConfig, OwnModel)
    model = AutoModel.from_config(OwnConfig())
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is OwnConfig
    assert torch.equal(AutoModel.from_pretrained(tmp_path).layer.weight, model.layer.weight)
    with pytest.raises(ConfigError, match="AutoModelForCausalLM has no class for model_type 'own'"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="the name 'own' is taken by .*; pass exist_ok=True to replace it"):
        AutoModel.register(OwnConfig, OwnModel)
    AutoModel.register(OwnConfig, OwnModel, exist_ok=True)


def test_what_cannot_be_registered(fresh):
    with pytest.raises(InputError, match="expected OwnConfig.model_type to be 'mine', got 'own'"):
        AutoConfig.register("mine", OwnConfig)
    with pytest.raises(InputError, match="whose config_class is ReformerConfig, but that of OwnModel is OwnConfig"):
        AutoModel.register(ReformerConfig, OwnModel)
    with pytest.raises(InputError, match="the name 'reformer' is taken by 'ReformerModel'"):
        AutoModel.register(ReformerConfig, ReformerModel)

    class Nameless(PretrainedConfig):
        pass

    with pytest.raises(InputError, match="AutoTokenizer.register: expected a config class with a model_type, got ''"):
        AutoTokenizer.register(Nameless, OwnTokenizer)
    with pytest.raises(InputError, match="expected a slow_tokenizer_class, a fast_tokenizer_class or both"):
        AutoTokenizer.register(OwnConfig)


def test_tokenizer_by_its_own_class_and_by_the_model_type(saved):
    _, folder = saved
    assert type(AutoTokenizer.from_pretrained(folder)) is ByteTokenizer
    change_config(folder, "tokenizer_config.json", tokenizer_class="ByteTokenizerFast")
    assert type(AutoTokenizer.from_pretrained(folder)) is ByteTokenizer
    change_config(folder, "tokenizer_config.json", tokenizer_class=None)
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=9)
    assert (type(tokenizer), tokenizer.model_max_length) == (ByteTokenizer, 9)
    assert tokenizer("ab").input_ids == [99, 100]


def test_tokenizer_that_nobody_knows(saved):
    _, folder = saved
    change_config(folder, "tokenizer_config.json", tokenizer_class="OwnTokenizer")
    with pytest.raises(ConfigError, match=f"{folder}: AutoTokenizer does not know the tokenizer class 'OwnTokenizer'"):
        AutoTokenizer.from_pretrained(folder)
    change_config(folder, "tokenizer_config.json", tokenizer_class="X", auto_map={"AutoTokenizer": ["code.X", None]})
    with pytest.raises(InputError, match="AutoTokenizer: .* brings its own code"):
        AutoTokenizer.from_pretrained(folder)
    change_config(folder, "tokenizer_config.json", tokenizer_class=None, auto_map=None)
    change_config(folder, model_type="own")
    with pytest.raises(ConfigError, match="AutoTokenizer has no class for model_type 'own'; it knows .*reformer"):
        AutoTokenizer.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(
        ConfigError, match=r"expected a tokenizer_class in tokenizer_config\.json or a model_type in conf"
    ):
        AutoTokenizer.from_pretrained(folder)


def test_a_vocabulary_that_the_suggested_class_does_not_read(saved):
    _, folder = saved
    (folder / "vocab.txt").write_bytes(b"")
    assert type(AutoTokenizer.from_pretrained(folder)) is ByteTokenizer, "the folder names its class"
    change_config(folder, "tokenizer_config.json", tokenizer_class=None)
    with pytest.raises(ConfigError, match="suggests ReformerTokenizerFast, which does not read vocab.txt"):
        AutoTokenizer.from_pretrained(folder)


def test_registered_tokenizers(fresh, saved):
    _, folder = saved
    AutoTokenizer.register(OwnConfig, OwnTokenizer, OwnTokenizerFast)
    change_config(folder, "tokenizer_config.json", tokenizer_class="OwnTokenizer")
    assert type(AutoTokenizer.from_pretrained(folder)) is OwnTokenizerFast
    assert type(AutoTokenizer.from_pretrained(folder, use_fast=False)) is OwnTokenizer
    change_config(folder, "tokenizer_config.json", tokenizer_class=None)
    assert type(AutoTokenizer.from_pretrained(folder, config=OwnConfig())) is OwnTokenizerFast
    assert type(AutoTokenizer.from_pretrained(folder, config=OwnConfig(), use_fast=False)) is OwnTokenizer


@pytest.mark.parametrize("auto", [AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer])
def test_auto_classes_are_not_instantiated(auto):
    with pytest.raises(InputError, match=f"{auto.__name__}: call {auto.__name__}.from_pretrained"):
        auto()


def test_reading_a_config_or_a_tokenizer_does_not_import_torch(saved):
    import subprocess
    import sys

    code = (
        "import sys; from modelwright.models.auto.configuration_auto import AutoConfig;"
        "from modelwright.models.auto.tokenization_auto import AutoTokenizer;"
        f"AutoConfig.from_pretrained({str(saved[1])!r}); AutoTokenizer.from_pretrained({str(saved[1])!r});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
