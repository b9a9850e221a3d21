"""How much each attention head matters to the loss, and which heads to prune for a wanted size.

Legend: N layers, H heads, T tokens. Source: Michel, Levy and Neubig 2019 (arXiv 1905.10650), section 4.1.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError


def score_heads(model: Any, windows: Sequence[Tensor]) -> Tensor:
    """Return [N, H], the mean size of the loss's gradient on a mask of ones, each layer's scores of length 1.

    windows: token ids [1, T], at least one. Heads that are pruned already score 0. The model's mode and gradients are
    as before. Raises InputError for a model that takes no head mask.
    """
    if "head_mask" not in inspect.signature(model.forward).parameters:
        raise InputError(f"{type(model).__name__} takes no head_mask, so its heads cannot be scored; name them instead")
    config, training = model.config, model.training
    mask = torch.ones(config.num_hidden_layers, config.num_attention_heads, device=model.device, requires_grad=True)
    total = torch.zeros_like(mask, requires_grad=False)
    model.eval()
    try:
        for ids in windows:
            loss = model(ids, labels=ids, head_mask=mask, use_cache=False).loss
            (gradient,) = torch.autograd.grad(loss, mask)
            total += gradient.abs()
    finally:
        model.train(training)
    scores: Tensor = total / len(windows)
    lengths: Tensor = scores.norm(dim=1, keepdim=True)
    return scores / lengths.clamp(min=1e-20)


def heads_to_prune(scores_NH: Tensor, keep: float, pruned: dict[int, list[int]] | None = None) -> dict[int, list[int]]:
    """Return {layer: heads}, the lowest scores of all layers, so that `keep` (0 to 1) of all heads stay.

    The best head of each layer stays in any case. `pruned` heads are gone already and count as such; they are not
    returned. Raises InputError for a share outside (0, 1].
    """
    if not 0 < keep <= 1:
        raise InputError(f"keep: expected a share of the heads above 0 and at most 1, got {keep}")
    layers, heads = scores_NH.shape
    gone = {(layer, head) for layer, each in (pruned or {}).items() for head in each}
    best = {(layer, int(scores_NH[layer].argmax())) for layer in range(layers)}
    wanted = layers * heads - max(round(keep * layers * heads), layers) - len(gone)
    chosen: dict[int, list[int]] = {}
    for flat in scores_NH.flatten().argsort().tolist():
        place = divmod(flat, heads)
        if wanted > 0 and place not in gone and place not in best:
            chosen.setdefault(place[0], []).append(place[1])
            wanted -= 1
    return {layer: sorted(each) for layer, each in sorted(chosen.items())}


def mean_loss(model: Any, windows: Sequence[Tensor]) -> float:
    """Return the mean loss of the windows [1, T], in nats per token, in evaluation mode."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            losses = [float(model(ids, labels=ids, use_cache=False).loss) for ids in windows]
    finally:
        model.train(training)
    return sum(losses) / len(losses)
