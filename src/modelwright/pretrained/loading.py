"""What `from_pretrained` does, step by step.

    folder --> config --> model on meta --> plan (headers only) --> load --> initialise the missing --> tie --> eval

A class of the 4.x kind, whose constructor takes a config only, is built on the CPU instead of on meta.
"""

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from modelwright.checkpoint.headers import Checkpoint
from modelwright.checkpoint.load import load_into, module_targets
from modelwright.checkpoint.memory import MemoryCheckpoint
from modelwright.checkpoint.names import Rename
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.plan import LoadPlan, make_load_plan
from modelwright.checkpoint.report import LoadReport, merge_keys
from modelwright.checkpoint.strictness import Strictness
from modelwright.checkpoint.verify import require_verified
from modelwright.config.configuration import PretrainedConfig, read_config
from modelwright.core.errors import (
    CheckpointMismatchError,
    ConfigError,
    InputError,
    RepoError,
    UnknownArgumentError,
    nearest,
)
from modelwright.core.logging import INFO, WARNING, get_logger
from modelwright.generation.configuration import GenerationConfig
from modelwright.hub.custom_code import hash_of_class
from modelwright.hub.local import LocalRepo
from modelwright.hub.names import ADAPTER_CONFIG_NAME, CONFIG_NAME, GENERATION_CONFIG_NAME
from modelwright.hub.open import open_repo
from modelwright.hub.repo import Repo
from modelwright.placement.devices import torch_device
from modelwright.placement.forecast import PlacedPlan, forecast
from modelwright.placement.offload import DiskStore, dispatch, load_device
from modelwright.placement.placement import Placement, make_placement
from modelwright.pretrained import adapters, dtypes, initialization, tying
from modelwright.pretrained.attention_choice import apply_to_config
from modelwright.pretrained.construction import construct, init_parameters, takes_factory_arguments
from modelwright.pretrained.legacy_keywords import LEGACY
from modelwright.pretrained.load_options import LoadOptions, PathLike
from modelwright.pretrained.quantized import make_optional_buffers

logger = get_logger(__name__)


@dataclass(frozen=True)
class _Ready:
    """A model without memory, and all that is known about its load before a weight is read."""

    model: Any
    repo: Repo | None
    adapter: Repo | None
    checkpoint: Checkpoint
    plan: LoadPlan
    placement: Placement | None


@contextlib.contextmanager
def _made_ready(
    model_class: Any,
    name_or_path: PathLike | None,
    model_args: Sequence[Any],
    options: LoadOptions,
    keywords: Mapping[str, Any],
) -> Iterator[_Ready]:
    wanted = dtypes.wanted_dtypes(options.where, options.dtype, options.torch_dtype)
    repo = _repo(name_or_path, options)
    adapter, repo = _with_base(repo, options)
    config, rest = _config(model_class, repo, options, keywords)
    apply_to_config(options.where, config, options.attn_implementation)
    arguments = _constructor_arguments(model_class, config, rest, options.where)
    with _checkpoint(repo, options) as checkpoint:
        resolved = dtypes.resolve(options.where, wanted, config, checkpoint.infos)
        model = construct(model_class, config, *model_args, device="meta", dtypes=resolved, **arguments)
        make_optional_buffers(model, checkpoint.infos)
        tied = tying.tied_groups(model)
        placement = make_placement(
            options.where,
            model,
            options.device_map,
            max_memory=options.max_memory,
            offload_buffers=options.offload_buffers,
            tied=tied,
        )
        yield _Ready(model, repo, adapter, checkpoint, _plan(model, checkpoint, options, tied), placement)


def plan_pretrained(
    model_class: Any,
    name_or_path: PathLike | None,
    model_args: Sequence[Any],
    options: LoadOptions,
    keywords: Mapping[str, Any],
) -> PlacedPlan:
    """Return what a load would do; documented at `PreTrainedModel.plan_from_pretrained`."""
    with _made_ready(model_class, name_or_path, model_args, options, keywords) as ready:
        placement = ready.placement or make_placement(options.where, ready.model, "cpu")
        assert placement is not None
        built = not takes_factory_arguments(model_class)
        devices = forecast(ready.model, ready.plan, ready.checkpoint, placement, built=built)
        return PlacedPlan(str(name_or_path or "state_dict"), ready.plan, placement, devices)


def load_pretrained(
    model_class: Any,
    name_or_path: PathLike | None,
    model_args: Sequence[Any],
    options: LoadOptions,
    keywords: Mapping[str, Any],
) -> Any:
    """Return the loaded model; documented at `PreTrainedModel.from_pretrained`."""
    with _made_ready(model_class, name_or_path, model_args, options, keywords) as ready:
        model = ready.model
        if options.verify is not None and ready.checkpoint.files:
            folder = ready.repo.folder if isinstance(ready.repo, LocalRepo) else ready.checkpoint.files[0].parent
            require_verified(folder, options.variant, hashes=options.verify == "hash")
        if ready.placement is None or ready.placement.single is not None:
            device = torch_device(options.where, ready.placement.main if ready.placement else "cpu")
            model.load_report = load_into(model, ready.checkpoint, ready.plan, device, strictness=options.strictness())
            _finish(model, device)
        else:
            _load_spread(ready, ready.placement, options)
        model.load_report.code_sha256 = hash_of_class(model_class)
    if ready.placement is not None:
        model.hf_device_map = dict(ready.placement.device_map)
    _say(model, name_or_path, options.strictness())
    model.generation_config = _generation_config(model, ready.repo, options)
    if ready.adapter is not None:
        assert name_or_path is not None
        _attach(model, name_or_path, options)
    return model.eval()


def _load_spread(ready: _Ready, placement: Placement, options: LoadOptions) -> None:
    """Load a model to several devices, or to disk: what is offloaded is read to the CPU, or mapped, and then hooked."""
    model = ready.model
    if ready.adapter is not None:
        raise NotImplementedError(f"{options.where}: an adapter needs its model on one device; name that as device_map")
    ready.plan.check(options.strictness())
    store = DiskStore(options.where, placement, options.offload_folder)
    store.check(ready.plan, ready.checkpoint)
    model.load_report = load_into(
        model,
        ready.checkpoint,
        ready.plan,
        lambda name: load_device(options.where, placement, name),
        to_parameter=store.to_parameter,
        strictness=options.strictness(),
    )
    initialization.initialize_missing(model, torch.device("cpu"))
    model.tie_weights()
    initialization.check_nothing_on_meta(model)
    store.settle(model)
    dispatch(model, placement)


def _repo(name_or_path: PathLike | None, options: LoadOptions) -> Repo | None:
    if name_or_path is not None:
        return open_repo(name_or_path, subfolder=options.subfolder, download=options.download)
    if options.state_dict is None or options.config is None:
        raise InputError(
            f"{options.where}: expected the folder of a model, got None; without one, pass both config and state_dict"
        )
    return None


# --- adapters -------------------------------------------------------------------------------------------------------


def _with_base(repo: Repo | None, options: LoadOptions) -> tuple[Repo | None, Repo | None]:
    """Return the repository of the adapter, if `repo` is one, and that of the model."""
    base = None if repo is None or options.state_dict is not None else adapters.base_of(repo)
    if base is None:
        if options.adapter_kwargs:
            raise InputError(f"{options.where}: adapter_kwargs is given, and there is no {ADAPTER_CONFIG_NAME}")
        return None, repo
    assert repo is not None
    adapters.peft()
    name, revision = base
    try:
        model = open_repo(name, download=replace(options.download, revision=revision, commit_hash=None))
    except RepoError as error:
        raise RepoError(f"{repo}: the model {name!r} of this adapter cannot be found: {error}") from error
    return repo, model


def _attach(model: Any, name_or_path: PathLike, options: LoadOptions) -> None:
    place = {"subfolder": options.subfolder, **options.download.keywords(), **(options.adapter_kwargs or {})}
    model.load_adapter(name_or_path, options.adapter_name, **place)


# --- the config -----------------------------------------------------------------------------------------------------


def _config(
    model_class: Any, repo: Repo | None, options: LoadOptions, keywords: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the config, a copy that may be changed, with the keywords that override it, and the other keywords."""
    given = options.config
    if isinstance(given, PretrainedConfig):
        _check_model_type(model_class, given.model_type, f"the given {type(given).__name__}")
        config, rest = copy.deepcopy(given), dict(keywords)
        if keywords:
            config, rest = type(given).from_dict(given.to_dict(), return_unused_kwargs=True, **keywords)
    else:
        if given is not None and not isinstance(given, str | os.PathLike):
            raise InputError(f"{options.where}: expected config to be a config or a folder, got {given!r}")
        source = repo if given is None else open_repo(given, download=replace(options.download, commit_hash=None))
        assert source is not None
        path, values = source.path(CONFIG_NAME), read_config(source)
        found = values.pop("model_type", None)
        _check_model_type(model_class, found, str(path))
        try:
            config, rest = model_class.config_class.from_dict(values, return_unused_kwargs=True, **keywords)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    config.name_or_path = "" if repo is None else repo.name
    return config, rest


def _check_model_type(model_class: Any, found: str | None, place: str) -> None:
    config_class = model_class.config_class
    if config_class is None:
        raise InputError(f"{model_class.__name__}: expected a class with config_class, the class of its config")
    known = {config_class.model_type, *config_class.compatible_model_types, *model_class._compatible_model_types}
    if found and config_class.model_type and found not in known:
        raise CheckpointMismatchError(
            f"{place}: expected a checkpoint of model_type {config_class.model_type!r} for {model_class.__name__}, "
            f"found {found!r}. Use the class of that family, or AutoModel"
        )


def _constructor_arguments(model_class: Any, config: Any, keywords: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what is left of the keywords if the constructor takes all of it, else raise UnknownArgumentError."""
    accepted = init_parameters(model_class)
    for name in keywords:
        if name not in accepted:
            choices = {*accepted, *LoadOptions.__dataclass_fields__, *LEGACY}
            choices |= {"num_labels", *config, *config.attribute_map}
            raise UnknownArgumentError(f"{where} got an unknown keyword {name!r}.{nearest(name, choices)}")
    return dict(keywords)


# --- the weights ----------------------------------------------------------------------------------------------------


def _checkpoint(repo: Repo | None, options: LoadOptions) -> Checkpoint:
    if options.state_dict is not None:
        return MemoryCheckpoint(options.state_dict)
    assert repo is not None
    return open_checkpoint(repo, variant=options.variant, use_safetensors=options.use_safetensors, mmap=options.mmap)


def _plan(model: Any, checkpoint: Checkpoint, options: LoadOptions, tied: Sequence[Sequence[str]]) -> LoadPlan:
    mapped = [Rename(pattern, replacement) for pattern, replacement in (options.key_mapping or {}).items()]
    return make_load_plan(
        checkpoint.infos,
        module_targets(model),
        rules=(*mapped, *model._checkpoint_renames),
        base_model_prefix=model.base_model_prefix,
        keys_to_ignore_missing=model._keys_to_ignore_on_load_missing or (),
        keys_to_ignore_unexpected=model._keys_to_ignore_on_load_unexpected or (),
        tied=tied,
        not_sources=model._tied_weights_not_sources,
    )


def _finish(model: Any, device: torch.device) -> None:
    """Give values to all that was not loaded, and put the model on its device with its tied weights tied."""
    initialization.initialize_missing(model, device)
    model.tie_weights()
    tying.move(model, device)
    initialization.check_nothing_on_meta(model)


def _say(model: Any, name_or_path: PathLike | None, strictness: Strictness) -> None:
    """Tell in one message what was initialised, and in one what was not used, but for what is to be ignored."""
    report: LoadReport = model.load_report
    where, place = type(model).__name__, "the state dict" if name_or_path is None else name_or_path
    fresh = report.missing_keys if strictness.missing == "warn" else []
    if strictness.mismatched == "warn":
        fresh = [*fresh, *(mismatch[0] for mismatch in report.mismatched_keys)]
    if fresh:
        logger.warning(
            "%s: %d weights are not in %s, or not in this shape, and are newly initialised: %s. Train the model before "
            "you rely on its predictions.",
            where,
            len(fresh),
            place,
            ", ".join(merge_keys(fresh)),
        )
    if report.unexpected_keys and strictness.unexpected == "warn":
        # The checkpoint of another class, such as one with a head, naturally holds more than is used.
        own = where in (model.config.architectures or [where])
        logger.log(
            WARNING if own else INFO,
            "%s: %d weights of %s are not used: %s",
            where,
            len(report.unexpected_keys),
            place,
            ", ".join(merge_keys(report.unexpected_keys)),
        )


def _generation_config(model: Any, repo: Repo | None, options: LoadOptions) -> Any:
    if options.generation_config is not None:
        return options.generation_config
    if model.can_generate() and repo is not None and repo.has(GENERATION_CONFIG_NAME):
        return GenerationConfig.from_pretrained(repo.path(GENERATION_CONFIG_NAME).parent)
    return model.generation_config
