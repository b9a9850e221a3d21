"""Learning from what another model answers: a teacher's outputs as the target of a student's.

Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.core.errors import InputError

# How much teacher's probabilities are evened out, so that the unlikely answers count as well.
TEMPERATURE = 2.0


class Teacher:
    """A model that answers without gradients and without dropout, on the device of the batch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    def __call__(self, batch: dict[str, Tensor]) -> Any:
        """Return the model's output for the keywords `batch`."""
        self.model.to(batch["input_ids"].device)
        with torch.no_grad():
            return self.model(**batch)


def distillation_loss(output: Any, wanted: Any, mask: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return how far a student's `output` is from the teacher's, `wanted`, a mean over rows, or over tokens.

    mask: [B, T], 1 for real tokens. Logits: the Kullback-Leibler divergence of the two distributions, in nats, at
    `temperature`, times its square; of starts and ends the mean of both; of logits for each token over the real tokens.
    Hidden states, of a model without a head: the squared distance of the real tokens' states as a share of the squared
    length of the teacher's. Raises InputError for an output of neither.
    """
    if "start_logits" in output:
        places = mask.bool()
        parts = [
            _divergence(_among(output[name], places), _among(wanted[name], places), temperature)
            for name in ("start_logits", "end_logits")
        ]
        return torch.stack(parts).mean()
    if "logits" in output:
        logits, target = output["logits"], wanted["logits"]
        if logits.dim() == 3:
            logits, target = logits[mask.bool()], target[mask.bool()]
        return _divergence(logits, target, temperature)
    if "last_hidden_state" in output:
        weights = mask[..., None].float()
        states, target = output["last_hidden_state"].float(), wanted["last_hidden_state"].float()
        distance: Tensor = ((states - target).square() * weights).sum() / (target.square() * weights).sum()
        return distance
    raise InputError(f"distillation: expected outputs with logits or last_hidden_state, got {', '.join(output)}")


def _among(logits_BT: Tensor, places_BT: Tensor) -> Tensor:
    return logits_BT.float().masked_fill(~places_BT, -1e4)


def _divergence(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the mean over the rows of logits [..., classes]."""
    own, wanted = (F.log_softmax(each.float() / temperature, dim=-1).flatten(0, -2) for each in (logits, target))
    return F.kl_div(own, wanted, reduction="batchmean", log_target=True) * temperature**2
