"""What `quantize`, `embed` and `classify` share: texts of a file, models of a folder, PyTorch's or its ONNX file."""

from pathlib import Path
from typing import Any

from modelwright.core.errors import ConfigError, InputError


def read_texts(option: str, path: Path, least: int = 1) -> list[str]:
    """Return the lines of a text file that are not empty; raise InputError, which names `option`, for other files."""
    if not path.is_file():
        raise InputError(f"{option}: expected a text file, a text a line; there is none at {path}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{option}: {path}: expected text in UTF-8: {error}") from error
    texts = [line for line in lines if line]
    if len(texts) < least:
        raise InputError(f"{option}: {path}: expected at least {least} lines of text, found {len(texts)}")
    return texts


def load_model(folder: str) -> Any:
    """Return the PyTorch model of a folder, of the class that its config names, for inference."""
    from modelwright import _public
    from modelwright.models.auto.configuration_auto import AutoConfig
    from modelwright.models.auto.modeling_auto import AutoModel
    from modelwright.models.auto.tables import load_public

    named = next(iter(getattr(AutoConfig.from_pretrained(folder), "architectures", None) or ()), None)
    known = named is not None and _public.find(named) is not None
    return (load_public(str(named)) if known else AutoModel).from_pretrained(folder).eval()


def load_runner(folder: str, runtime: str, threads: int | None) -> Any:
    """Return what a folder's texts are to be run by: `runtime` is "onnx", "torch", or "auto" (ONNX where there is)."""
    from modelwright.export.runtime import OnnxModel
    from modelwright.hub.names import ONNX_NAME

    if runtime not in ("auto", "onnx", "torch"):
        raise InputError(f"--runtime: expected auto, onnx or torch, got {runtime!r}")
    if runtime == "onnx" or (runtime == "auto" and (Path(folder) / ONNX_NAME).is_file()):
        return OnnxModel.from_pretrained(folder, threads=threads)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return load_model(folder)


def longest(config: Any, wanted: int) -> int:
    """Return how many tokens of a text a model reads, `wanted` at most."""
    limit: int = getattr(config, "max_position_embeddings", None) or wanted
    if wanted < 3:
        raise InputError(f"--max-length: expected at least 3 tokens, got {wanted}")
    return min(wanted, limit)


def labels_of(config: Any) -> dict[int, str]:
    """Return the names of a classifier's labels; raise ConfigError for a config without."""
    labels = getattr(config, "id2label", None)
    if not labels:
        raise ConfigError("classify: expected id2label in config.json, found none")
    return {int(number): name for number, name in labels.items()}
