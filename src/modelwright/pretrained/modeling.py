"""PreTrainedModel: what every model class inherits, and where the 4.x interface meets the rooms that do the work.

    from_pretrained --> loading.load_pretrained      save_pretrained --> saving.save_pretrained
    post_init       --> initialization, tying        _from_config    --> construction.construct

Nothing here changes the state of the process: many threads may load at once.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, Self, overload

import torch
from torch import Tensor, nn

from modelwright.checkpoint.names import Rename
from modelwright.checkpoint.report import LoadReport
from modelwright.checkpoint.strictness import Reaction
from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import InputError, PlacementError, UnknownArgumentError, nearest
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.mixin import GenerationMixin
from modelwright.hub.custom_code import AutoClassMixin
from modelwright.hub.download import take_download
from modelwright.hub.publish import PushToHubMixin
from modelwright.nn.tracing import is_tracing
from modelwright.placement.forecast import PlacedPlan
from modelwright.placement.offload import execution_device
from modelwright.pretrained import (
    attention_choice,
    attention_masks,
    bad_inputs,
    dtypes,
    initialization,
    pruning,
    quantized,
    saving,
    tying,
)
from modelwright.pretrained.adapters_mixin import AdaptersMixin
from modelwright.pretrained.checkpointing_mixin import GradientCheckpointingMixin
from modelwright.pretrained.construction import construct, init_parameters
from modelwright.pretrained.embeddings_mixin import EmbeddingsMixin
from modelwright.pretrained.legacy_keywords import settle
from modelwright.pretrained.load_options import LoadOptions, PathLike
from modelwright.pretrained.loading import load_pretrained, plan_pretrained
from modelwright.pretrained.module_utils import ModuleUtilsMixin
from modelwright.pretrained.unpadding import UnpaddingMixin

Dtype = torch.dtype | str | Mapping[str, torch.dtype | str] | None


class PreTrainedModel(
    nn.Module,
    ModuleUtilsMixin,
    EmbeddingsMixin,
    GradientCheckpointingMixin,
    AdaptersMixin,
    UnpaddingMixin,
    quantized.Int8Mixin,
    GenerationMixin,
    AutoClassMixin,
    PushToHubMixin,
):
    """Base of all models: a torch module with a config that can be loaded, saved, initialised and tied.

    A subclass sets `config_class` and `base_model_prefix`, builds its layers in `__init__(self, config, *,
    device=None, dtype=None)`, handing both to each of them, and calls `post_init()` last. It initialises its layers in
    `_init_weights(self, module)`. A class whose `__init__` takes a config only works too; it is built on the CPU.

    Other class attributes: `_tied_weights_keys` (see `modelwright.pretrained.tying`), `_tied_weights_not_sources`
    (names that never stand for what they are tied to when only they are in a file), `_checkpoint_renames` (rules for
    names in files, undone when saving), `_compatible_model_types` (other model types whose checkpoints this class may
    read), `_keys_to_ignore_on_load_missing`, `_keys_to_ignore_on_load_unexpected` (regular expressions),
    `_keys_to_ignore_on_save` (names), `_supports_attention_backend` (whether attention runs the kernel that the config
    names), `_tied_parts` (names of models inside which tie their own weights), `_scores_unshifted_labels` (whether a
    language model's loss takes labels as they stand, each for the logits at its place), `_no_split_modules` (classes
    that must be on one device whole, such as blocks with a residual connection), `_placement_refusal` (why a model
    cannot be spread over devices) and, for a base model without `_prune_heads(heads)`, `_pruning_refusal`, why its
    heads cannot be pruned.
    """

    config_class: ClassVar[Any] = None
    base_model_prefix: str = ""
    main_input_name: str = "input_ids"
    _checkpoint_renames: ClassVar[tuple[Rename, ...]] = ()
    _compatible_model_types: ClassVar[tuple[str, ...]] = ()
    _tied_weights_keys: ClassVar[Any] = None
    _tied_weights_not_sources: ClassVar[tuple[str, ...]] = ()
    _keys_to_ignore_on_load_missing: ClassVar[Any] = None
    _keys_to_ignore_on_load_unexpected: ClassVar[Any] = None
    _keys_to_ignore_on_save: ClassVar[Any] = None
    _supports_attention_backend: ClassVar[bool] = False
    _tied_parts: ClassVar[tuple[str, ...]] = ()
    _scores_unshifted_labels: ClassVar[bool] = False
    _no_split_modules: ClassVar[Any] = None
    _placement_refusal: ClassVar[Any] = None
    _pruning_refusal: ClassVar[str | None] = None
    _default_auto_class: ClassVar[str] = "AutoModel"

    load_report: LoadReport | None = None
    # Only on a model that was loaded with a device map: accelerate asks whether it is there.
    hf_device_map: dict[str, int | str]
    model_tags: list[str] | None = None
    _looked_for_padding: bool = False

    def __init__(self, config: Any, *inputs: Any, **kwargs: Any) -> None:
        """Keep the config; raise InputError if it is none, UnknownArgumentError for what nobody took."""
        super().__init__()
        where = type(self).__name__
        if not isinstance(config, PretrainedConfig):
            raise InputError(
                f"{where}: expected a config (a PretrainedConfig), got {type(config).__name__}; to load weights use "
                f"{where}.from_pretrained(folder)"
            )
        if inputs or kwargs:
            extra = next(iter(kwargs), None)
            raise UnknownArgumentError(
                f"{where} got an unknown keyword {extra!r}.{nearest(extra, init_parameters(type(self)))}"
                if extra is not None
                else f"{where}: expected one argument without a name, the config, got {1 + len(inputs)}"
            )
        attention_choice.settle_own(type(self), config)
        self.config: Any = config
        self.name_or_path: str = config.name_or_path
        self.generation_config: GenerationConfig | None = (
            GenerationConfig.from_model_config(config) if self.can_generate() else None
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model; ids, masks and labels that do not fit raise InputError that says so."""
        try:
            return super().__call__(*args, **kwargs)
        except bad_inputs.FAILURES as error:
            if not is_tracing():
                bad_inputs.explain(self, error, args, kwargs)
            raise

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Do what `to`, `half` and their like ask for; raise PlacementError for a spread model."""
        if execution_device(self) is not None:
            raise PlacementError(
                f"{type(self).__name__} is spread over devices by device_map={self.hf_device_map} and cannot be moved "
                "or cast as a whole. Load it with the dtype and device_map that it shall have"
            )
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    # --- making and loading -----------------------------------------------------------------------------------------

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: PathLike | None,
        *model_args: Any,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, list[Any]]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: PathLike | None,
        *model_args: Any,
        output_loading_info: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: PathLike | None,
        *model_args: Any,
        config: PretrainedConfig | PathLike | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        dtype: Dtype = None,
        torch_dtype: Dtype = None,
        device_map: Any = None,
        max_memory: Mapping[int | str, int | str] | None = None,
        offload_folder: PathLike | None = None,
        offload_buffers: bool = False,
        mmap: bool = True,
        verify: Literal["size", "hash"] | None = None,
        subfolder: str = "",
        variant: str | None = None,
        use_safetensors: bool | None = None,
        strict: bool | Mapping[str, Reaction] = False,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        key_mapping: Mapping[str, str] | None = None,
        generation_config: GenerationConfig | None = None,
        attn_implementation: str | Mapping[str, str] | None = None,
        adapter_kwargs: Mapping[str, Any] | None = None,
        adapter_name: str = "default",
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, list[Any]]]:
        """Return the model of a folder or hub repository (config.json and weights), in evaluation mode.

        With `output_loading_info` the result is (model, {"missing_keys", "unexpected_keys", "mismatched_keys",
        "error_msgs"}); the same, and more, is always in `model.load_report`. What the checkpoint lacks is initialised
        and listed in one warning. The caller's config is copied, never changed.

        config: a config, or a folder to read it from, instead of the checkpoint's.
        state_dict: weights to use instead of the folder's; the path may then be None if `config` is a config.
        dtype: a floating-point dtype, its name, or "auto" (the config's, else the checkpoint's); None is float32. A
            dictionary says it for sub-configs by their names, and for the rest under "". `torch_dtype` is its older
            name.
        device_map: a device (None is the CPU: a number is an accelerator, "disk" is one too), {module: device}, or
            "auto", "balanced", "balanced_low_0" or "sequential" within `max_memory` ({device: bytes or "2GiB"}, None is
            what is free); see `modelwright.placement.placement`. What is offloaded is for inference only.
        offload_folder: where weights on disk go that the files do not hold as needed. offload_buffers: buffers too.
        mmap: False reads all weights into memory of their own. Those that need no cast otherwise are maps of the
            file, which must then not be truncated while the model lives (replacing it is fine).
        verify: "size" or "hash" compares the files with what is known of them (a manifest, names in a hub cache).
        subfolder, variant: where in the folder, and "fp16" for files such as model.fp16.safetensors.
        use_safetensors: True reads safetensors files only, False .bin files only, None what is there.
        strict: True raises for missing, unexpected and mismatched keys, False for mismatched ones only and warns of the
            others; {"missing": "error", "unexpected": "ignore"} says it for each, "warn" being the third possibility.
        ignore_mismatched_sizes: the same as strict={"mismatched": "warn"}: parameters whose shape differs in the
            checkpoint are initialised.
        key_mapping: {regular expression: replacement} for names in the checkpoint.
        attn_implementation: the attention kernel, such as "sdpa" or "eager", or {sub-config: kernel}.
        revision, cache_dir, token, local_files_only, force_download: how to get the files of a hub repository; see
            `modelwright.hub.download`.
        adapter_name, adapter_kwargs: for a folder with an adapter of peft (adapter_config.json), which is attached to
            the model that it names: a name for it, and keywords of `load_adapter`.
        model_args and other keywords: attributes of the config override it, parameters of the class's constructor are
            handed to it, keywords of 4.x that do nothing say so once.

        Raises RepoError (no such folder or file), HubError (no such repository, no access, offline),
        ConfigError, CheckpointError (damaged files), CheckpointMismatchError (another architecture or shape),
        UnknownArgumentError, NotImplementedError.
        """
        # Before any other local: the arguments that are options of the load.
        chosen = {name: value for name, value in locals().items() if name in LoadOptions.__dataclass_fields__}
        where = f"{cls.__name__}.from_pretrained"
        if device_map is not None and kwargs.get("low_cpu_mem_usage") is False:
            raise InputError(f"{where}: a device_map needs low_cpu_mem_usage=True, which is always so; leave it out")
        download, kwargs = take_download(where, kwargs)
        options = LoadOptions(where=where, download=download, **chosen)
        model: Self = load_pretrained(cls, pretrained_model_name_or_path, model_args, options, settle(where, kwargs))
        if not output_loading_info:
            return model
        assert model.load_report is not None
        return model, model.load_report.loading_info()

    @classmethod
    def plan_from_pretrained(
        cls, pretrained_model_name_or_path: PathLike | None, *model_args: Any, **kwargs: Any
    ) -> PlacedPlan:
        """Return what `from_pretrained` with these arguments would do, before a weight is read.

        The plan has the source, dtypes and device of every parameter, what is missing, unexpected and mismatched, and
        the memory that each device will hold and need; `str(plan)` is a table, `plan.to_dict()` JSON-ready data.
        """
        where = f"{cls.__name__}.plan_from_pretrained"
        download, kwargs = take_download(where, kwargs)
        chosen = {name: kwargs.pop(name) for name in LoadOptions.__dataclass_fields__ if name in kwargs}
        options = LoadOptions(where=where, download=download, **chosen)
        return plan_pretrained(cls, pretrained_model_name_or_path, model_args, options, settle(where, kwargs))

    @classmethod
    def from_config(
        cls,
        config: PretrainedConfig,
        *,
        dtype: Dtype = None,
        torch_dtype: Dtype = None,
        device: torch.device | str | None = None,
        attn_implementation: str | Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a newly initialised model, in training mode, of a copy of `config`.

        dtype: as for `from_pretrained`, "auto" being the config's. device: where to build it, "meta" for a model
        without memory. attn_implementation: as for `from_pretrained`. Other keywords go to the constructor. Raises
        UnknownArgumentError for those that it lacks.
        """
        where = f"{cls.__name__}.from_config"
        kwargs = settle(where, kwargs)
        known = init_parameters(cls)
        for name in kwargs:
            if name not in known:
                choices = {*known, "dtype", "torch_dtype", "attn_implementation"}
                raise UnknownArgumentError(f"{where} got an unknown keyword {name!r}.{nearest(name, choices)}")
        config = copy.deepcopy(config)
        attention_choice.apply_to_config(where, config, attn_implementation)
        resolved = dtypes.resolve(where, dtypes.wanted_dtypes(where, dtype, torch_dtype), config)
        model: Self = construct(cls, config, device=device, dtypes=resolved, **kwargs)
        if device is not None:
            tying.move(model, device)
        return model

    # 4.x's name, which its Auto classes and third-party code call.
    _from_config = from_config

    def post_init(self) -> None:
        """Initialise and tie; the last call of every constructor.

        A config of early 4.x may say `gradient_checkpointing=True`: it is switched on, and is not in the config then.
        """
        self.init_weights()
        if getattr(self.config, "gradient_checkpointing", False) and self.supports_gradient_checkpointing:
            self.gradient_checkpointing_enable()
            del self.config.gradient_checkpointing

    def init_weights(self) -> None:
        """Prune and quantize as the config says, initialise the modules that have not been and tie the weights.

        On meta nothing is initialised.
        """
        pruning.prune_as_configured(self)
        quantized.quantize_as_configured(self)
        if not any(parameter.is_meta for parameter in self.parameters()):
            initialization.initialize(self)
        self.tie_weights()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the parameters of `module`; a subclass overrides this. Here: what torch does for its layers."""

    # --- heads and kernels ------------------------------------------------------------------------------------------

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Take attention heads out of the model, for good: {layer: heads}, numbered as before any pruning.

        `config.pruned_heads` notes them, is saved, and makes the checkpoint load into the smaller model. Heads that are
        gone already are left out. Raises InputError, before anything is changed, for a layer or head that does not
        exist or a layer that would lose its last head, NotImplementedError for a family that cannot be pruned.
        Source: Michel et al. 2019 (arXiv 1905.10650).
        """
        pruning.prune_heads(self, heads_to_prune)

    def set_attn_implementation(self, attn_implementation: str | Mapping[str, str]) -> None:
        """Use another attention kernel from now on: a registered name for the whole model, or {sub-config: name}.

        Raises InputError, and changes nothing, for a name that is not registered or that the model cannot run.
        """
        attention_choice.set_attn_implementation(self, attn_implementation)

    # --- saving -----------------------------------------------------------------------------------------------------

    def save_pretrained(
        self,
        save_directory: PathLike,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        save_function: Callable[..., Any] = torch.save,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
        variant: str | None = None,
        token: str | bool | None = None,
        save_peft_format: bool = True,
        distributed_checkpoint: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write config.json, generation_config.json (if the model generates) and the weights into a folder.

        The folder then holds the new checkpoint whole; if anything fails, the old one. Of a model with adapters only
        the active one is written, as one file, and its config.

        is_main_process: False writes nothing, for the other processes of a distributed run.
        state_dict: the weights to write instead of the model's own.
        save_function: writes a .bin file, called as save_function(tensors, path); unused with safetensors.
        max_shard_size: bytes, or text such as "5GB" (10^9) or "2GiB" (2^30); more goes into several files. A tensor
            that is larger gets a file of its own.
        safe_serialization: safetensors files, or with False .bin files.
        variant: goes into the file names, as in model.fp16.safetensors.
        save_peft_format: begin the names of an adapter's tensors with "base_model.model.", as peft does.
        distributed_checkpoint: every process calls this and writes its part of the weights (of a model that FSDP has
            sharded, say) by torch.distributed.checkpoint; `from_pretrained` reads them, `modelwright convert` too.
        push_to_hub: upload what was saved as one commit; repo_id (by default the folder's name), token, private,
            revision, create_pr, commit_message, commit_description and tags are as for `push_to_hub`.

        Raises InputError (also while `to_bettertransformer()` holds) and UnknownArgumentError for arguments, RepoError
        or CheckpointError if the folder cannot be written, HubError if the upload is refused.
        """
        saving.save_pretrained(
            self,
            save_directory,
            is_main_process=is_main_process,
            state_dict=state_dict,
            save_function=save_function,
            push_to_hub=push_to_hub,
            max_shard_size=max_shard_size,
            safe_serialization=safe_serialization,
            variant=variant,
            token=token,
            save_peft_format=save_peft_format,
            distributed_checkpoint=distributed_checkpoint,
            **kwargs,
        )

    def add_model_tags(self, tags: str | Iterable[str]) -> None:
        """Add tags (one, or several) to those that go into the model card when the model is pushed to the hub."""
        new = [tags] if isinstance(tags, str) else list(tags)
        self.model_tags = list(dict.fromkeys([*(self.model_tags or ()), *new]))

    def _obsolete_files(self, **save_keywords: Any) -> Callable[[str], bool]:
        return saving.obsolete_files(self, save_keywords.get("variant"))

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type | None = "AutoModel") -> None:
        """Make saving copy this class's file, so that `AutoModel`, or another auto class, can load what is saved.

        See `AutoClassMixin.register_for_auto_class`.
        """
        super().register_for_auto_class(auto_class)

    # --- parts ------------------------------------------------------------------------------------------------------

    @property
    def base_model(self) -> nn.Module:
        """The model without its head: the submodule `base_model_prefix`, or the model itself."""
        return getattr(self, self.base_model_prefix, self) if self.base_model_prefix else self

    def warn_if_padding_and_no_attention_mask(self, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        """Say once that rows of `input_ids` (B, T) begin or end with the pad token although there is no mask.

        Nothing is looked at while the model is traced or compiled, nor on an accelerator after the first batch.
        """
        attention_masks.warn_if_padding(self, input_ids, attention_mask)

    @property
    def _states_width(self) -> int:
        """How wide the states are that a model without head returns; of most, `config.hidden_size`."""
        return int(self.config.hidden_size)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A small batch that the model accepts."""
        return {self.main_input_name: torch.tensor([[1, 2, 3, 0], [3, 1, 0, 2]])}

    @property
    def framework(self) -> str:
        """Always "pt", for PyTorch."""
        return "pt"
