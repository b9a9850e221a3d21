"""The methods of a model that are about adapters of the package peft, as 4.x has them."""

from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

from torch import Tensor, nn

from modelwright.core.errors import CheckpointMismatchError, InputError, reject_unknown
from modelwright.hub.download import take_download
from modelwright.hub.open import open_repo
from modelwright.pretrained import adapters
from modelwright.pretrained.load_options import PathLike


class AdaptersMixin:
    """Attaches adapters (LoRA and its kin) to a model, whose own parameters are frozen then.

    While there is an adapter, `save_pretrained` writes the active one only, and `from_pretrained` of that folder loads
    the model that it belongs to and attaches it. Raises MissingPackageError if peft is not installed.
    """

    _hf_peft_config_loaded: bool = False
    peft_config: dict[str, Any]
    name_or_path: str

    def add_adapter(self, adapter_config: Any, adapter_name: str | None = None) -> None:
        """Attach a new adapter for training, as `adapter_config` (a config of peft) says, and use it.

        Raises InputError for another kind of config and for a name that is taken.
        """
        where, name = f"{type(self).__name__}.add_adapter", adapter_name or "default"
        if not isinstance(adapter_config, adapters.peft().PeftConfig):
            raise InputError(f"{where}: expected a config of peft, such as LoraConfig, got {adapter_config!r}")
        self._check_free(where, name)
        adapter_config.base_model_name_or_path = self.name_or_path or None
        adapters.inject(self, adapter_config, name)
        self.set_adapter(name)

    def load_adapter(
        self,
        peft_model_id: PathLike | None = None,
        adapter_name: str | None = None,
        *,
        peft_config: Any = None,
        adapter_state_dict: Mapping[str, Tensor] | None = None,
        is_trainable: bool = False,
        subfolder: str = "",
        variant: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Attach the adapter of a folder or hub repository, and use it.

        peft_config, adapter_state_dict: instead of what the folder holds; both together need no folder.
        is_trainable: go on training it; otherwise it is frozen like the model.
        subfolder, variant, kwargs: as for `from_pretrained`, the keywords being those of the hub.
        Raises InputError for a name that is taken, RepoError, and CheckpointMismatchError for an adapter that does not
        fit.
        """
        where, name = f"{type(self).__name__}.load_adapter", adapter_name or "default"
        download, rest = take_download(where, kwargs)
        reject_unknown(where, rest, {"revision", "token", "cache_dir", "local_files_only", "force_download"})
        self._check_free(where, name)
        if peft_model_id is None and (peft_config is None or adapter_state_dict is None):
            raise InputError(f"{where}: expected the folder of an adapter, or both peft_config and adapter_state_dict")
        repo: Any = None
        if peft_model_id is not None:
            repo = open_repo(peft_model_id, subfolder=subfolder, download=download)
        config = adapters.config_in(repo) if peft_config is None else peft_config
        weights = adapters.weights_in(repo, variant) if adapter_state_dict is None else adapter_state_dict
        config.inference_mode = not is_trainable
        trained = {id(parameter) for parameter in _module(self).parameters() if parameter.requires_grad}
        adapters.inject(self, config, name)
        try:
            adapters.fill(self, name, weights, str(peft_model_id or "adapter_state_dict"))
        except CheckpointMismatchError:
            adapters.remove(self, name)
            for parameter in _module(self).parameters():
                parameter.requires_grad_(id(parameter) in trained)
            raise
        adapters.activate(_module(self), [name], trains=is_trainable)

    def _check_free(self, where: str, name: str) -> None:
        if self._hf_peft_config_loaded and name in self.peft_config:
            raise InputError(f"{where}: there is an adapter {name!r} already; choose another adapter_name")

    def _check_there(self, method: str, names: Iterable[str] = ()) -> None:
        where = f"{type(self).__name__}.{method}"
        if not self._hf_peft_config_loaded:
            raise InputError(f"{where}: the model has no adapter; call load_adapter() or add_adapter() first")
        for name in names:
            if name not in self.peft_config:
                raise InputError(f"{where}: expected one of {', '.join(self.peft_config)}, got {name!r}")

    def set_adapter(self, adapter_name: list[str] | str) -> None:
        """Use this adapter, or these together, from now on, and train it. Raises InputError for an unknown name."""
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        self._check_there("set_adapter", names)
        adapters.activate(_module(self), names, trains=True)

    def active_adapters(self) -> list[str]:
        """Return the names of the adapters in use. Raises InputError without any adapter."""
        self._check_there("active_adapters")
        active: str | list[str] = next(adapters.layers(_module(self))).active_adapter
        return [active] if isinstance(active, str) else list(active)

    def disable_adapters(self) -> None:
        """Let the model compute as without adapters. Raises InputError without any."""
        self._check_there("disable_adapters")
        for layer in adapters.layers(_module(self)):
            layer.enable_adapters(enabled=False)

    def enable_adapters(self) -> None:
        """Undo `disable_adapters`. Raises InputError without any adapter."""
        self._check_there("enable_adapters")
        for layer in adapters.layers(_module(self)):
            layer.enable_adapters(enabled=True)

    def delete_adapter(self, adapter_names: list[str] | str) -> None:
        """Take adapters out; the model stays frozen, and after the last one can be saved whole.

        Raises InputError for an unknown name.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._check_there("delete_adapter", names)
        for name in names:
            adapters.remove(self, name)

    def get_adapter_state_dict(
        self, adapter_name: str | None = None, state_dict: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the tensors of an adapter, by default of the active one, out of the model's own or `state_dict`."""
        self._check_there("get_adapter_state_dict", [] if adapter_name is None else [adapter_name])
        return adapters.weights_of(self, adapter_name or self.active_adapters()[0], state_dict)

    def prepare_for_peft(self) -> Self:
        """Make the layers known to peft that only modelwright has, and return the model.

        What a GPT-2 needs before `peft.get_peft_model`; the methods here do it themselves.
        """
        adapters.peft()
        adapters.prepare_for_peft(_module(self))
        return self


def _module(model: AdaptersMixin) -> nn.Module:
    return cast(nn.Module, model)
