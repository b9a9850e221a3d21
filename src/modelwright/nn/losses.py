"""Losses that models share."""

from torch import Tensor
from torch.nn import functional as F

from modelwright.nn.precision import at_least_float32


def causal_lm_loss(logits_BTV: Tensor, labels_BT: Tensor, ignore_index: int = -100) -> Tensor:
    """Mean cross-entropy, in nats per token, of predicting each token from the ones before it; computed in fp32.

    Position t of the logits is scored against label t+1; labels equal to `ignore_index` do not count.
    """
    logits_RV = at_least_float32(logits_BTV[:, :-1].flatten(0, 1))
    labels_R = labels_BT[:, 1:].flatten().to(logits_RV.device)
    return F.cross_entropy(logits_RV, labels_R, ignore_index=ignore_index)
