"""`modelwright plan`."""

from typing import Annotated, Any

import typer

from modelwright.cli.console import print_json
from modelwright.core.errors import InputError

_SHORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}


def plan(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="Folder or hub name of a model.")],
    device_map: Annotated[
        str | None, typer.Option(help="A device, a strategy such as auto, or module=device,module=device.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="device=size,device=size, such as cpu=2GiB,disk=10GiB.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16, fp32 or auto; float32 if left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what loading a model would do: what goes where, what is missing, how much memory it takes.

    Reads headers only, no weights.
    """
    found = model_class(checkpoint).plan_from_pretrained(
        checkpoint,
        device_map=_device_map(device_map),
        max_memory=_pairs("--max-memory", max_memory),
        dtype=full_dtype(dtype),
    )
    if json:
        print_json(found.to_dict())
    else:
        print(found)


def model_class(checkpoint: str) -> Any:
    """Return the class that the checkpoint's config names, or else the one of its type without a head.

    Raises ConfigError for a model that the library does not have.
    """
    from modelwright import _public
    from modelwright.config.json_file import read_json
    from modelwright.hub.names import CONFIG_NAME
    from modelwright.hub.open import open_repo
    from modelwright.models.auto.modeling_auto import AutoModel
    from modelwright.models.auto.tables import load_public

    path = open_repo(checkpoint).path(CONFIG_NAME)
    config = read_json(path)
    for name in config.get("architectures") or ():
        if _public.find(name) is not None:
            return load_public(name)
    return AutoModel.table.find(str(config.get("model_type")), str(path))


def full_dtype(name: str | None) -> str | None:
    """Return "bfloat16" for "bf16"; other names as they are."""
    return None if name is None else _SHORT_DTYPES.get(name, name)


def _device_map(text: str | None) -> Any:
    pairs = _pairs("--device-map", text) if text is not None and "=" in text else None
    if pairs is not None:
        return {"" if name == "." else name: _number(device) for name, device in pairs.items()}
    return _number(text)


def _pairs(option: str, text: str | None) -> dict[Any, str] | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and equals and value for name, equals, value in pairs):
        raise InputError(f"{option}: expected name=value,name=value, got {text!r}")
    names = _number if option == "--max-memory" else str
    return {names(name): value for name, _, value in pairs}


def _number(text: Any) -> Any:
    return int(text) if isinstance(text, str) and text.isdecimal() else text
