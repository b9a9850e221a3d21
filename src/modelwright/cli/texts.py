"""Texts through a model of a folder, PyTorch's or its ONNX file: a vector for each, or the scores of its labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 16


def read_texts(option: str, path: Path, least: int = 1) -> list[str]:
    """Return the lines of a text file that are not empty; raise InputError, which names `option`, for other files."""
    if not path.is_file():
        raise InputError(f"{option}: expected a text file, a text a line; there is none at {path}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
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


class TextRunner:
    """Turns texts into vectors by a model, in batches of texts of about one length; results come in the texts' order.

    A vector is the mean of the last hidden states of the text's tokens, of length 1; for a model with a head it is the
    logits, for one that scores tokens those of all `max_length` places (zeros behind the text).
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str], max_length: int) -> None:
        self.order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        self.max_length = max_length
        ordered = [texts[i] for i in self.order]
        self.batches: list[dict[str, Tensor]] = [
            dict(
                tokenizer(
                    ordered[start : start + BATCH],
                    padding=True,
                    truncation=True,
                    max_length=max_length,
                    return_tensors="pt",
                )
            )
            for start in range(0, len(ordered), BATCH)
        ]

    def __call__(self, model: Any) -> "Tensor":
        """Return a vector for each text, [texts, size]."""
        import torch

        with torch.inference_mode():
            found = torch.cat([self._vectors(model(**batch), batch["attention_mask"]) for batch in self.batches])
        return found[torch.tensor(self.order).argsort()]

    def _vectors(self, output: Any, mask: "Tensor") -> "Tensor":
        import torch
        from torch.nn import functional as F

        if "last_hidden_state" in output:
            return mean_embedding(output["last_hidden_state"], mask)
        values = output.get("logits")
        if "start_logits" in output:
            values = torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
        if values is None:
            raise InputError(f"quantize: expected a model that returns states or logits, got {', '.join(output)}")
        if values.dim() == 2:
            scores: Tensor = values
            return scores
        kept: Tensor = values * mask[..., None]
        return F.pad(kept, (0, 0, 0, self.max_length - kept.shape[1])).flatten(1)


def mean_embedding(states: "Tensor", mask: "Tensor") -> "Tensor":
    """Return the mean of the real tokens' states [B, T, E], with length 1."""
    from torch.nn import functional as F

    weights = mask[..., None].to(states.dtype)
    return F.normalize((states * weights).sum(1) / weights.sum(1).clamp(min=1), dim=-1)


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
