"""What `save_pretrained` writes: the weights under the names of the files, and the configs beside them."""

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelwright.checkpoint.headers import dtype_name
from modelwright.checkpoint.names import restore_names
from modelwright.checkpoint.save import save_checkpoint
from modelwright.core.errors import InputError, UnknownArgumentError, nearest
from modelwright.core.logging import get_logger
from modelwright.hub.names import CONFIG_NAME, GENERATION_CONFIG_NAME
from modelwright.pretrained import tying
from modelwright.pretrained.load_options import PathLike

logger = get_logger(__name__)

_PUSH_KEYWORDS = frozenset(
    {"repo_id", "commit_message", "commit_description", "private", "create_pr", "revision", "tags", "use_auth_token"}
)


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
    **kwargs: Any,
) -> None:
    """Write `model` into a folder; documented at `PreTrainedModel.save_pretrained`."""
    where = f"{type(model).__name__}.save_pretrained"
    _check_keywords(where, push_to_hub, token, save_peft_format, kwargs)
    if not is_main_process:
        return
    folder = Path(save_directory)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{where}: expected a folder to save in, got the file {folder}")
    if safe_serialization and save_function is not torch.save:
        logger.warning_once(f"{where}: save_function is unused, it writes .bin files; safe_serialization is True.")
    save_checkpoint(
        weights_to_save(model, state_dict),
        folder,
        max_shard_size=max_shard_size,
        variant=variant,
        extra_files=config_files(model),
        safe=safe_serialization,
        save_function=save_function,
        total_parameters=model.num_parameters(),
    )


def weights_to_save(model: Any, state_dict: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return what goes into the files: no tied duplicates, nothing ignored, names as they were in the checkpoint."""
    weights = dict(model.state_dict()) if state_dict is None else dict(state_dict)
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


def _check_keywords(
    where: str, push_to_hub: bool, token: str | bool | None, save_peft_format: bool, others: Iterable[str]
) -> None:
    for name in others:
        if name not in _PUSH_KEYWORDS:
            known = {*_PUSH_KEYWORDS, "is_main_process", "state_dict", "save_function", "push_to_hub", "max_shard_size"}
            known |= {"safe_serialization", "variant", "token", "save_peft_format"}
            raise UnknownArgumentError(f"{where} got an unknown keyword {name!r}.{nearest(name, known)}")
        logger.warning_once(f"{where}: {name} has no effect without push_to_hub.")
    if push_to_hub:
        raise NotImplementedError(f"{where}: push_to_hub is not built yet; save to a folder and upload that")
    if token is not None:
        logger.warning_once(f"{where}: token has no effect without push_to_hub.")
    if not save_peft_format:
        logger.warning_once(f"{where}: save_peft_format has no effect: the model has no adapter.")
