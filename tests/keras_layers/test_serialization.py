"""keras_serializable: what is saved is reloaded, whole and right, in a process that knows nothing of it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import references as ref
import user_layers
from keras import ops
from user_layers import TinyConfig, TinyEncoder, TinyModel

from modelwright import PretrainedConfig
from modelwright import keras_layers as layers
from modelwright.core.errors import ConfigError
from modelwright.keras_layers.keras_api import keras as our_keras

IDS = np.array([[1, 4, 2], [8, 0, 3]])
INPUTS = {"ids": IDS, "position": np.array([2, 1])}
CONFIG = TinyConfig(
    hidden_size=4, id2label={0: "no", 1: "yes", 2: "both"}, summary_type="cls_index", summary_use_proj=True
)

RELOAD = """
import json, sys
import numpy as np
{imports}
import keras
model = keras.models.load_model(sys.argv[1])
inputs = {{name: np.array(value) for name, value in json.loads(sys.argv[2]).items()}}
output = model.predict(inputs if len(inputs) > 1 else inputs["ids"], verbose=0)
config = getattr(model, "config", None)
print(json.dumps([output.tolist(), config and [type(config).__name__, config.to_dict()]]))
"""


def reloaded(path: Path, imports: str, inputs: dict[str, Any]) -> Any:
    """Return the output and the configuration of a saved model in a new process that only `imports`."""
    given = json.dumps({name: value.tolist() for name, value in inputs.items()})
    command = [sys.executable, "-c", RELOAD.format(imports=imports), str(path), given]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    output, config = json.loads(result.stdout.splitlines()[-1])
    return np.array(output), config


def test_a_model_in_a_fresh_process(tmp_path: Path) -> None:
    model = TinyModel(CONFIG)
    wanted = model.predict(INPUTS, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    output, config = reloaded(path, "import user_layers", INPUTS)
    np.testing.assert_allclose(output, wanted, atol=1e-6)
    assert config == ["TinyConfig", json.loads(json.dumps(CONFIG.to_dict()))]
    saved = json.loads(zipfile.ZipFile(path).read("config.json"))["config"]
    assert saved["transformers_config"]["id2label"] == {"0": "no", "1": "yes", "2": "both"}
    assert set(saved) == {"transformers_config"}


def test_our_layers_in_a_fresh_process(tmp_path: Path) -> None:
    ids = keras.Input((None,), dtype="int32")
    hidden = layers.TFSharedEmbeddings(9, ref.HIDDEN, name="embeddings")(ids)
    hidden = layers.TFConv1D(5, ref.HIDDEN, initializer_range=0.3)(hidden)
    summary = layers.TFSequenceSummary(
        PretrainedConfig(summary_type="mean", summary_use_proj=True, hidden_size=5, summary_activation="gelu_new")
    )
    model = keras.Model(ids, summary(hidden))
    model.compile("sgd", loss=layers.TaskLoss("sequence_classification"))
    model.save(tmp_path / "model.keras")
    # A file of Keras names the module of each class, but Keras imports none but its own.
    output, _ = reloaded(tmp_path / "model.keras", "from modelwright.keras_layers import *", {"ids": IDS})
    np.testing.assert_allclose(output, model.predict(IDS, verbose=0), atol=1e-6)


@pytest.mark.parametrize("key", ["transformers_config", "config"])
def test_a_layer_from_its_config(key: str) -> None:
    layer = TinyEncoder(CONFIG, 2.0, constraint=keras.constraints.MaxNorm(3), name="mine", dtype="mixed_bfloat16")
    saved = json.loads(json.dumps(layer.get_config()))
    assert saved["transformers_config"]["hidden_size"] == 4
    assert (saved["scale"], saved["name"]) == (2.0, "mine")
    saved[key] = saved.pop("transformers_config")
    again = TinyEncoder.from_config(saved)
    assert again.config == CONFIG
    assert (again.scale, again.name, again.dtype_policy.name) == (2.0, "mine", "mixed_bfloat16")
    assert (type(again.constraint).__name__, again.constraint.max_value) == ("MaxNorm", 3)


def test_the_configuration_in_all_its_forms() -> None:
    for layer in (TinyEncoder(CONFIG), TinyEncoder(config=CONFIG), TinyEncoder(CONFIG.to_dict()),
                  TinyEncoder(config=CONFIG.to_dict()), TinyEncoder(transformers_config=CONFIG.to_dict())):  # fmt: skip
        assert layer.config == CONFIG
        assert ops.shape(layer(IDS)) == (2, 3, 4)


def test_a_get_config_of_the_users_own_stays() -> None:
    @layers.keras_serializable
    class Own(keras.layers.Layer):
        config_class = TinyConfig

        def __init__(self, config: Any) -> None:
            super().__init__()

        def get_config(self) -> dict[str, Any]:
            return {"transformers_config": {"hidden_size": 7}}

    assert Own(CONFIG).get_config() == {"transformers_config": {"hidden_size": 7}}


def test_a_subclass_is_decorated_again() -> None:
    @layers.keras_serializable
    class Wider(TinyEncoder):
        def __init__(self, config: Any, width: int = 2, **kwargs: Any) -> None:
            super().__init__(config, scale=float(width), **kwargs)
            self.width = width

    saved = Wider(CONFIG, width=5, name="wider").get_config()
    assert {"name", "trainable", "dtype", "width", "transformers_config"} == set(saved)
    again = Wider.from_config(saved)
    assert (again.width, again.scale, again.config) == (5, 5.0, CONFIG)


@pytest.mark.parametrize("config", ["tiny", 3, None, PretrainedConfig()])
def test_a_configuration_of_the_wrong_type(config: Any) -> None:
    found = "nothing" if config is None else f"a {type(config).__name__}"
    for error in (TypeError, ValueError):
        with pytest.raises(
            error, match=f"TinyEncoder: expected config to be a TinyConfig or its dictionary, got {found}"
        ):
            TinyEncoder(config)


def test_two_configurations() -> None:
    with pytest.raises(ConfigError, match="its configuration twice: as the first argument and as transformers_config"):
        TinyEncoder(CONFIG, transformers_config=CONFIG.to_dict())


def test_classes_that_cannot_be_decorated() -> None:
    class NoConfig(keras.layers.Layer):
        pass

    class WrongConfig(keras.layers.Layer):
        config_class = dict

    with pytest.raises(
        AttributeError, match="NoConfig must set config_class to a subclass of PretrainedConfig; it has none"
    ):
        layers.keras_serializable(NoConfig)
    with pytest.raises(AttributeError, match="WrongConfig must set config_class .*; got <class 'dict'>"):
        layers.keras_serializable(WrongConfig)
    for wrong in (TinyConfig, lambda: None):
        with pytest.raises(TypeError, match="expected a subclass of keras.layers.Layer, got"):
            layers.keras_serializable(wrong)


def test_another_class_of_the_same_name_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Namesake(keras.layers.Layer):
        config_class = TinyConfig

    layers.keras_serializable(Namesake)
    assert caplog.text == ""
    other = type("Namesake", (keras.layers.Layer,), {"config_class": TinyConfig, "__module__": "elsewhere"})
    layers.keras_serializable(other)
    assert "elsewhere.Namesake takes the name modelwright>Namesake from" in caplog.text


def test_there_is_one_keras() -> None:
    assert our_keras is keras
    assert user_layers.keras is keras


def test_a_decorated_layer_inside_a_functional_model(tmp_path: Path) -> None:
    first, second = (keras.Input((None,), dtype="int32", name=name) for name in ("first", "second"))
    encoder = TinyEncoder(CONFIG, scale=3.0)
    model = keras.Model({"first": first, "second": second}, encoder(first) - encoder(second))
    inputs = {"first": IDS, "second": IDS[::-1]}
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-6)
    assert np.abs(model.predict(inputs, verbose=0)).max() > 0
