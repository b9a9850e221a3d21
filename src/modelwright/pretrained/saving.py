"""What `save_pretrained` writes: the weights under the names of the files, and the configs beside them."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelwright.checkpoint.distributed import save_distributed
from modelwright.checkpoint.headers import dtype_name
from modelwright.checkpoint.names import restore_names
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.transition import belongs_to_variant
from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.hub.names import CONFIG_NAME, GENERATION_CONFIG_NAME, MANIFEST_NAME
from modelwright.hub.publish import publish, take_push
from modelwright.placement.offload import offloaded_values
from modelwright.pretrained import adapters, tying
from modelwright.pretrained.load_options import PathLike
from modelwright.pretrained.unpadding import check_can_be_saved

logger = get_logger(__name__)


def save_pretrained(
    model: Any,
    save_directory: PathLike,
    *,
    is_main_process: bool,
    state_dict: Mapping[str, Tensor] | None,
    save_function: Callable[..., Any],
    push_to_hub: bool,
    max_shard_size: int | str,
    safe_serialization: bool,
    variant: str | None,
    token: str | bool | None,
    save_peft_format: bool,
    distributed_checkpoint: bool,
    **kwargs: Any,
) -> None:
    """Write `model` into a folder; documented at `PreTrainedModel.save_pretrained`."""
    where = f"{type(model).__name__}.save_pretrained"
    push = take_push(model, save_directory, push_to_hub, {**kwargs, "token": token})
    if not save_peft_format and not model._hf_peft_config_loaded:
        logger.warning_once(f"{where}: save_peft_format has no effect: the model has no adapter.")
    check_can_be_saved(where, model)
    if distributed_checkpoint:
        if push is not None or variant is not None or not safe_serialization or model._hf_peft_config_loaded:
            raise InputError(
                f"{where}: a distributed checkpoint has no variant, no .bin files and no adapter, and is not pushed; "
                "`modelwright convert` makes a plain one of it"
            )
        save_distributed(weights_to_save(model, state_dict), save_directory, extra_files=config_files(model))
        return
    if not is_main_process:
        return
    folder = Path(save_directory)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{where}: expected a folder to save in, got the file {folder}")
    if safe_serialization and save_function is not torch.save:
        logger.warning_once(f"{where}: save_function is unused, it writes .bin files; safe_serialization is True.")
    if model._hf_peft_config_loaded:
        files = adapters.save(
            model,
            folder,
            state_dict=state_dict,
            safe=safe_serialization,
            save_function=save_function,
            variant=variant,
            prefixed=save_peft_format,
        )
        if push is not None:
            publish(folder, files, push, obsolete=obsolete_files(model, variant))
        return
    report = save_checkpoint(
        weights_to_save(model, state_dict),
        folder,
        max_shard_size=max_shard_size,
        variant=variant,
        extra_files=config_files(model),
        safe=safe_serialization,
        save_function=save_function,
        total_parameters=model.num_parameters(),
    )
    if push is not None:
        publish(folder, (*report.files, MANIFEST_NAME), push, obsolete=obsolete_files(model, variant))


def obsolete_files(model: Any, variant: str | None) -> Callable[[str], bool]:
    """Return which files of a hub repository a save of `model` in this variant replaces, whatever their names."""
    if model._hf_peft_config_loaded:
        return lambda name: name in adapters.weights_names(variant)
    return lambda name: belongs_to_variant(name, variant)


def weights_to_save(model: Any, state_dict: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return what goes into the files: no tied duplicates, nothing ignored, names as they were in the checkpoint."""
    weights = {**model.state_dict(), **offloaded_values(model)} if state_dict is None else dict(state_dict)
    weights = tying.without_tied(model, weights)
    for name in model._keys_to_ignore_on_save or ():
        weights.pop(name, None)
    names = restore_names(weights, model._checkpoint_renames)
    return {names[name]: tensor for name, tensor in weights.items()}


def config_files(model: Any) -> dict[str, str]:
    """Return the texts of the config files, and of code to save, by name.

    The class and dtype of `model` are noted in config.json.
    """
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = dtype_name(model.dtype)
    files: dict[str, str] = config.note_code([type(config), type(model)])
    files[CONFIG_NAME] = config.to_json_string()
    if model.can_generate() and model.generation_config is not None:
        files[GENERATION_CONFIG_NAME] = model.generation_config.to_json_string()
    return files
