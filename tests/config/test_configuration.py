"""PretrainedConfig: defaults, aliases, labels, dtype, comparison, overriding."""

import copy
import pickle
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modelwright.config.configuration import PreTrainedConfig, PretrainedConfig
from modelwright.core.errors import ConfigError, RepoError, UnknownArgumentError


class TinyConfig(PretrainedConfig):
    """Written as 4.x code writes its configs: super().__init__ last, an alias, a value derived from another."""

    model_type = "tiny"
    attribute_map: ClassVar[dict[str, str]] = {"hidden_size": "d_model", "num_hidden_layers": "layers"}

    def __init__(self, d_model: int = 8, layers: int = 2, window: int | None = None, **kwargs: Any) -> None:
        self.d_model = d_model
        self.layers = layers
        self.window = window
        self.d_inner = 4 * d_model
        super().__init__(**kwargs)


class NeedyConfig(PretrainedConfig):
    """Cannot be made without an argument."""

    model_type = "needy"

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size


class PairConfig(PretrainedConfig):
    """Holds two others."""

    model_type = "pair"
    sub_configs: ClassVar[dict[str, Any]] = {"left": TinyConfig, "right": TinyConfig}

    def __init__(self, left: Any = None, right: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.left = TinyConfig(**(left or {}))
        self.right = TinyConfig(**(right or {}))


def test_both_spellings_are_one_class() -> None:
    assert PreTrainedConfig is PretrainedConfig


def test_unknown_keywords_become_attributes_and_are_saved(tmp_path: Path) -> None:
    TinyConfig(flavour="mint", nested={"a": [1, None]}).save_pretrained(tmp_path)
    config = TinyConfig.from_pretrained(tmp_path)
    assert config.flavour == "mint"
    assert config.nested == {"a": [1, None]}


def test_a_missing_attribute_is_an_attribute_error_that_python_can_complete() -> None:
    config = TinyConfig()
    with pytest.raises(AttributeError, match="TinyConfig has no attribute 'd_modl'") as caught:
        config.d_modl
    assert caught.value.name == "d_modl"
    assert not hasattr(config, "nothing")


def test_aliases_read_write_and_construct() -> None:
    config = TinyConfig(hidden_size=16)
    assert (config.d_model, config.hidden_size) == (16, 16)
    config.num_hidden_layers = 5
    assert config.layers == 5
    assert "num_hidden_layers" not in config.to_dict()
    assert "hidden_size" not in vars(config)


def test_aliases_in_a_file_and_as_overrides_go_through_the_constructor(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "tiny", "hidden_size": 16}')
    config = TinyConfig.from_pretrained(tmp_path)
    assert (config.d_model, config.d_inner) == (16, 64)
    config = TinyConfig.from_pretrained(tmp_path, hidden_size=32)
    assert (config.d_model, config.d_inner) == (32, 128)
    assert TinyConfig.from_dict({"hidden_size": 1, "d_model": 2}).d_model == 2


def test_labels_follow_from_each_other() -> None:
    config = PretrainedConfig(num_labels=3)
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    config = PretrainedConfig(id2label={"0": "no", "1": "yes"})
    assert (config.num_labels, config.id2label[1], config.label2id) == (2, "yes", {"no": 0, "yes": 1})
    config.num_labels = 2
    assert config.id2label[1] == "yes"
    config.num_labels = 1
    assert config.id2label == {0: "LABEL_0"}


def test_contradicting_labels_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"PretrainedConfig.id2label has 2 labels, but num_labels is 3; give only one"
    ):
        PretrainedConfig(num_labels=3, id2label={0: "a", 1: "b"})
    with pytest.raises(ConfigError, match=r"id2label: expected a dictionary with whole numbers as keys, got \['a'\]"):
        PretrainedConfig(id2label=["a"])
    with pytest.raises(ConfigError, match="num_labels: expected a whole number of 0 or more, got -1"):
        PretrainedConfig(num_labels=-1)


def test_a_file_with_contradicting_labels_loads_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text('{"num_labels": 7, "id2label": {"0": "a"}, "label2id": {"a": 0}}')
    assert PretrainedConfig.from_pretrained(tmp_path).id2label == {0: "a"}
    assert "num_labels 7 and 1 names in id2label" in caplog.text


def test_num_labels_overrides_the_names_in_a_file(tmp_path: Path) -> None:
    TinyConfig(id2label={0: "a", 1: "b"}).save_pretrained(tmp_path)
    assert TinyConfig.from_pretrained(tmp_path, num_labels=2).id2label == {0: "a", 1: "b"}
    assert TinyConfig.from_pretrained(tmp_path, num_labels=3).label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert TinyConfig.from_pretrained(tmp_path, id2label={0: "x"}).label2id == {"x": 0}


def test_problem_type_is_checked() -> None:
    assert PretrainedConfig(problem_type="regression").problem_type == "regression"
    with pytest.raises(ConfigError, match=r"problem_type: expected None or one of regression, .*, got 'guess'"):
        PretrainedConfig(problem_type="guess")


def test_dtype_is_kept_as_a_name() -> None:
    import torch

    for given in ("float16", "torch.float16", torch.float16):
        assert PretrainedConfig(dtype=given).dtype == "float16"
        assert PretrainedConfig(torch_dtype=given).torch_dtype == "float16"
    config = PretrainedConfig()
    config.torch_dtype = torch.bfloat16
    assert config.to_dict()["dtype"] == "bfloat16"
    assert "torch_dtype" not in config.to_dict()
    with pytest.raises(ConfigError, match="dtype: expected a name such as 'float32'"):
        config.dtype = "16 bits"  # type: ignore[assignment]


def test_an_old_file_with_torch_dtype_and_an_override(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"torch_dtype": "float16"}')
    assert PretrainedConfig.from_pretrained(tmp_path).dtype == "float16"
    assert PretrainedConfig.from_pretrained(tmp_path, dtype="float32").dtype == "float32"
    assert PretrainedConfig.from_pretrained(tmp_path, torch_dtype="float32").dtype == "float32"


def test_use_return_dict() -> None:
    assert PretrainedConfig().use_return_dict
    assert not PretrainedConfig(return_dict=False).use_return_dict
    assert not PretrainedConfig(torchscript=True).use_return_dict


def test_generation_fields_of_old_files_are_kept_and_others_have_defaults() -> None:
    config = PretrainedConfig(max_length=64, top_k=None)
    assert config.generation_fields() == {"max_length": 64, "top_k": None}
    assert config.num_beams == 1
    assert config.to_diff_dict()["max_length"] == 64
    assert "num_beams" not in config.to_dict()
    assert PretrainedConfig.from_dict(config.to_dict()).generation_fields() == config.generation_fields()


def test_overrides_that_name_no_attribute_are_refused_or_handed_back(tmp_path: Path) -> None:
    TinyConfig(flavour="mint").save_pretrained(tmp_path)
    with pytest.raises(
        UnknownArgumentError, match="TinyConfig has no attribute 'windw' to override. Did you mean 'window'"
    ):
        TinyConfig.from_pretrained(tmp_path, windw=3)
    config, unused = TinyConfig.from_pretrained(tmp_path, windw=3, window=4, flavour="rye", return_unused_kwargs=True)
    assert unused == {"windw": 3}
    assert (config.window, config.flavour) == (4, "rye")


def test_a_file_of_another_family_is_refused_unless_compatible(tmp_path: Path) -> None:
    NeedyConfig(3).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has model_type 'needy', but TinyConfig reads 'tiny'; use AutoConfig"):
        TinyConfig.from_pretrained(tmp_path)
    assert PretrainedConfig.from_pretrained(tmp_path).model_type == "needy"

    class WideConfig(TinyConfig):
        compatible_model_types = ("needy",)

    assert WideConfig.from_pretrained(tmp_path).to_dict()["size"] == 3


def test_errors_of_the_constructor_name_the_place(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"problem_type": "guess"}')
    with pytest.raises(ConfigError, match=f"the config of {tmp_path}: TinyConfig.problem_type: expected"):
        TinyConfig.from_pretrained(tmp_path)


def test_from_pretrained_takes_a_file_and_a_subfolder_and_remembers_the_place(tmp_path: Path) -> None:
    TinyConfig(layers=9).save_pretrained(tmp_path / "inner")
    assert TinyConfig.from_pretrained(tmp_path, subfolder="inner").layers == 9
    config = TinyConfig.from_pretrained(tmp_path / "inner" / "config.json")
    assert config.layers == 9
    assert config.name_or_path == str(tmp_path / "inner" / "config.json")
    assert "_name_or_path" not in config.to_json_string()


def test_a_folder_without_a_config_is_a_repo_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(RepoError, match=r"config\.json") as caught:
        TinyConfig.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_saving_onto_a_file_is_a_repo_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RepoError, match="taken: expected a folder to save the config in, found a file"):
        TinyConfig().save_pretrained(tmp_path / "taken")


def test_copies_pickles_and_comparisons() -> None:
    config = TinyConfig(window=3, pruned_heads={"0": [1]})
    for other in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config
    assert config != TinyConfig(window=4, pruned_heads={0: [1]})
    assert config != PretrainedConfig()
    changed = config.to_dict()
    changed["pruned_heads"][0].append(2)
    assert config.pruned_heads == {0: [1]}
    assert config == TinyConfig.from_dict(config.to_dict())


def test_instances_share_no_default() -> None:
    TinyConfig().pruned_heads[0] = [1]
    assert TinyConfig().pruned_heads == {}


def test_a_class_that_needs_arguments_can_be_written() -> None:
    assert NeedyConfig(3).to_diff_dict()["size"] == 3


def test_nested_configs_are_written_short_and_read_again(tmp_path: Path) -> None:
    config = PairConfig(left={"layers": 7})
    short = config.to_diff_dict()
    assert short["left"]["layers"] == 7
    assert "pruned_heads" not in short["left"]
    assert "modelwright_version" not in short["left"]
    config.save_pretrained(tmp_path)
    assert PairConfig.from_pretrained(tmp_path) == config


def test_update_sets_attributes() -> None:
    config = TinyConfig()
    config.update({"hidden_size": 3, "new": 1})
    assert (config.d_model, config.new) == (3, 1)


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    TinyConfig(d_model=16).save_pretrained("~/a")
    assert (tmp_path / "a" / "config.json").is_file()
    for place in ("~/a", "~/a/config.json", Path("~/a/config.json")):
        assert TinyConfig.from_pretrained(place).d_model == 16
    assert TinyConfig.from_json_file("~/a/config.json").d_model == 16
    TinyConfig().to_json_file("~/a/b.json")
    assert (tmp_path / "a" / "b.json").is_file()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_dtype_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of float16, bfloat16, float32, float64, .* or auto; got 'float99'"):
        TinyConfig(dtype="float99")
    for name in ("auto", "torch.bfloat16", "float8_e4m3fn", "int8", "half"):
        assert TinyConfig(dtype=name).dtype == name.removeprefix("torch.")


def test_every_dtype_of_torch_is_known() -> None:
    torch = pytest.importorskip("torch")
    dtypes = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]
    assert len(dtypes) > 20
    for dtype in dtypes:
        assert TinyConfig(dtype=dtype).dtype == str(dtype).removeprefix("torch.")
