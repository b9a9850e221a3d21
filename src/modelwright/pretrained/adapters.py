"""Adapters of the package peft on a model: found in a folder, loaded, saved. peft is imported only when there is one.

peft injects its layers into the model itself, so a model with an adapter still is the model, with more parameters.
"""

import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from modelwright.checkpoint.bin_file import BinFile
from modelwright.checkpoint.headers import Checkpoint
from modelwright.checkpoint.report import merge_keys, shape_text
from modelwright.checkpoint.safetensors_file import SafetensorsFile
from modelwright.checkpoint.save_together import save_together
from modelwright.checkpoint.sharing import own_memory
from modelwright.config.json_file import read_json
from modelwright.core.errors import CheckpointMismatchError, ConfigError, InputError
from modelwright.core.optional import require
from modelwright.hub.names import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_SAFE_WEIGHTS_NAME,
    ADAPTER_WEIGHTS_NAME,
    add_variant,
)
from modelwright.hub.repo import Repo
from modelwright.nn.conv1d import Conv1D

# What peft's own wrapper puts before every name.
_PREFIX = "base_model.model."


def base_of(repo: Repo) -> tuple[str, str] | None:
    """Return name and revision of the model that the adapter in `repo` belongs to; None if there is no adapter.

    Raises ConfigError if the adapter does not name one.
    """
    if not repo.has(ADAPTER_CONFIG_NAME):
        return None
    path = repo.path(ADAPTER_CONFIG_NAME)
    values = read_json(path)
    name = values.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ConfigError(
            f"{path}: expected base_model_name_or_path to name the model that the adapter belongs to, got {name!r}. "
            "Load that model, then call model.load_adapter(folder)"
        )
    return name, values.get("revision") or "main"


def peft() -> Any:
    """Import peft; raise MissingPackageError if it is not installed."""
    return require("peft", extra="peft", why="an adapter")


def layers(model: nn.Module) -> Iterator[Any]:
    """Yield the layers of `model` that hold adapters."""
    return (module for module in model.modules() if isinstance(module, _layer_class()))


def _layer_class() -> Any:
    """Return the class of peft's layers around a layer of the model."""
    return importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer


def _whole_class() -> Any:
    """Return the class of peft's wrappers of modules that are trained as a whole (`modules_to_save`)."""
    return importlib.import_module("peft.utils.other").AuxiliaryTrainingWrapper


def inject(model: Any, config: Any, name: str) -> None:
    """Put the layers of an adapter, newly initialised, into `model`; the model's own parameters are frozen."""
    prepare_for_peft(model)
    # peft takes configs that it finds for a mistake.
    others = vars(model).pop("peft_config", {})
    peft().inject_adapter_in_model(config, model, name)
    model.peft_config = {**others, **model.peft_config}
    model._hf_peft_config_loaded = True


def remove(model: Any, name: str) -> None:
    """Take the adapter `name` out of `model`, with the last one also peft's layers."""
    for layer in layers(model):
        layer.delete_adapter(name)
    model.peft_config.pop(name, None)
    if model.peft_config:
        return
    del model.peft_config
    model._hf_peft_config_loaded = False
    wrappers: list[tuple[str, Any]] = [*model.named_modules()]
    for path, module in wrappers:
        parent, _, leaf = path.rpartition(".")
        if isinstance(module, _layer_class()):
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
        elif isinstance(module, _whole_class()):
            setattr(model.get_submodule(parent), leaf, module.original_module)


def prepare_for_peft(model: nn.Module) -> None:
    """Make the Conv1D layers of `model` known to peft, which knows those of transformers only."""
    for module in model.modules():
        if type(module) is Conv1D:
            module.__class__ = _known_conv1d()


@functools.cache
def _known_conv1d() -> type[Conv1D]:
    known = importlib.import_module("peft.tuners.lora.layer").Conv1D
    return type("Conv1D", (Conv1D, known), {"__doc__": Conv1D.__doc__, "__module__": Conv1D.__module__})


def config_in(repo: Repo) -> Any:
    """Return peft's config of the adapter in `repo`."""
    return peft().PeftConfig.from_pretrained(str(repo.path(ADAPTER_CONFIG_NAME).parent))


def weights_names(variant: str | None) -> tuple[str, str]:
    """Return what the file of an adapter's weights is called as safetensors and as .bin."""
    return add_variant(ADAPTER_SAFE_WEIGHTS_NAME, variant), add_variant(ADAPTER_WEIGHTS_NAME, variant)


def weights_in(repo: Repo, variant: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of the adapter in `repo`, on the CPU as they are stored."""
    safe_name, bin_name = weights_names(variant)
    if repo.has(safe_name) or not repo.has(bin_name):
        opened: Checkpoint = SafetensorsFile(repo.path(safe_name))
    else:
        opened = BinFile(repo.path(bin_name))
    with opened as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.infos}


def fill(model: Any, name: str, weights: Mapping[str, Tensor], place: str) -> None:
    """Give the adapter `name` of `model` its weights, all of them.

    Whole embeddings may be among them, as of a vocabulary that was changed for the adapter.
    Raises CheckpointMismatchError, before anything is changed, if one is missing, unexpected or of another shape.
    """
    stored = {key.removeprefix(_PREFIX): tensor for key, tensor in weights.items()}
    wanted = peft().get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    known = {**dict(model.named_parameters()), **wanted}
    problems = [
        f"{kind}: {', '.join(merge_keys(keys)[:5])}"
        for kind, keys in (("missing", wanted.keys() - stored.keys()), ("unexpected", stored.keys() - known.keys()))
        if keys
    ]
    problems += [
        f"{key}: stored {shape_text(tensor.shape)}, the model expects {shape_text(known[key].shape)}"
        for key, tensor in stored.items()
        if key in known and tensor.shape != known[key].shape
    ]
    if problems:
        raise CheckpointMismatchError(
            f"{place}: the adapter does not fit this {type(model).__name__}: {'; '.join(problems)}. Load it into the "
            "model that it was trained with (with the same vocabulary: see resize_token_embeddings)"
        )
    peft().set_peft_model_state_dict(model, stored, adapter_name=name)


def activate(model: nn.Module, names: list[str], *, trains: bool) -> None:
    """Let the adapters `names` of `model`, and no others, be computed; train them or freeze them."""
    for module in model.modules():
        if isinstance(module, (_layer_class(), _whole_class())):
            module.set_adapter(names if len(names) > 1 else names[0])
    if not trains:
        for module in layers(model):
            module.requires_grad_(False)


def weights_of(model: Any, name: str, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the tensors of the adapter `name`, under the names that they have in a file without peft's prefix."""
    found: dict[str, Tensor] = peft().get_peft_model_state_dict(model, state_dict=state_dict, adapter_name=name)
    return found


def save(
    model: Any,
    folder: Any,
    *,
    state_dict: Mapping[str, Tensor] | None,
    safe: bool,
    save_function: Any,
    variant: str | None,
    prefixed: bool,
) -> tuple[str, str]:
    """Write the active adapter of `model`; return the names of its files. See `PreTrainedModel.save_pretrained`."""
    names = model.active_adapters()
    if len(names) != 1:
        raise InputError(
            f"{type(model).__name__}.save_pretrained: expected one active adapter, got {', '.join(names) or 'none'}; "
            "choose one by set_adapter()"
        )
    prefix = _PREFIX if prefixed else ""
    weights = own_memory({prefix + key: one for key, one in weights_of(model, names[0], state_dict).items()})
    config = model.peft_config[names[0]]

    def write_weights(path: Any) -> None:
        if safe:
            save_file(weights, path, metadata={"format": "pt"})
        else:
            save_function(weights, path)

    file, other = weights_names(variant)[:: 1 if safe else -1]
    save_together(
        folder,
        {file: write_weights, ADAPTER_CONFIG_NAME: lambda path: _write_config(config, path)},
        stale=[other],
    )
    return file, ADAPTER_CONFIG_NAME


def _write_config(config: Any, path: Any) -> None:
    # An adapter that is saved in the middle of its training is loaded for use.
    before = config.inference_mode
    config.inference_mode = True
    try:
        config.save_pretrained(str(path.parent))
    finally:
        config.inference_mode = before
