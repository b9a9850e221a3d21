"""Losses that models share."""

from torch import Tensor
from torch.nn import functional as F

from modelwright.core.errors import InputError
from modelwright.nn.precision import at_least_float32

IGNORED = -100


class _LabelError(InputError, IndexError):
    """A label that is no class; torch raises an IndexError."""


def cross_entropy(scores_RV: Tensor, labels_R: Tensor, ignore_index: int = IGNORED, *, what: str = "labels") -> Tensor:
    """Mean cross-entropy in nats, computed in fp32; labels equal to `ignore_index` do not count.

    Raises InputError, which names `what`, for labels that are no whole numbers, another number of labels than rows of
    scores, and (on the CPU, where looking costs nothing) labels that are no class.
    """
    rows, classes = scores_RV.shape
    if labels_R.is_floating_point() or labels_R.shape != (rows,):
        raise InputError(
            f"{what}: expected {rows} whole numbers, one for each row of scores, got {labels_R.numel()} of "
            f"{labels_R.dtype}"
        )
    labels_R = labels_R.to(scores_RV.device).long()
    try:
        return F.cross_entropy(at_least_float32(scores_RV), labels_R, ignore_index=ignore_index)
    except IndexError as error:
        wrong = labels_R[(labels_R != ignore_index) & ((labels_R < 0) | (labels_R >= classes))]
        raise _LabelError(
            f"{what}: expected classes from 0 to {classes - 1}, or {ignore_index} for what does not count, got "
            f"{int(wrong[0])}"
        ) from error


def causal_lm_loss(logits_BTV: Tensor, labels_BT: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Mean cross-entropy, in nats per token, of predicting each token from the ones before it; computed in fp32.

    Position t of the logits is scored against label t+1; labels equal to `ignore_index` do not count.
    """
    return cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index)
