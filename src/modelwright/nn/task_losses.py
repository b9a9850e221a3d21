"""The losses of the usual heads on top of a model: labels of sequences and tokens, and spans of answers.

Shapes: B sequences, T tokens, N labels. All are computed in fp32 and are means, in nats unless they are squares.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from modelwright.core.errors import InputError

IGNORED = -100


def problem_type_of(problem_type: str | None, num_labels: int, labels: Tensor) -> str:
    """Return `problem_type`, or what the labels mean where it is None.

    One label is a regression, several are exclusive ("single_label_classification") if the labels are whole numbers.
    """
    if problem_type is not None:
        return problem_type
    if num_labels == 1:
        return "regression"
    whole = labels.dtype in (torch.int64, torch.int32)
    return "single_label_classification" if whole else "multi_label_classification"


def sequence_classification_loss(logits_BN: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """Mean squared error, cross-entropy or binary cross-entropy, by `problem_type` (see `problem_type_of`).

    `labels` are [B] class numbers, [B] or [B, N] numbers, or [B, N] zeros and ones. Raises InputError for other shapes.
    """
    logits_BN = logits_BN.float()
    labels = labels.to(logits_BN.device)
    kind = problem_type_of(problem_type, logits_BN.shape[-1], labels)
    if kind == "single_label_classification":
        if labels.numel() != logits_BN.shape[0]:
            raise InputError(
                f"labels: expected one class number for each of {logits_BN.shape[0]} sequences, "
                f"got shape {tuple(labels.shape)}"
            )
        return F.cross_entropy(logits_BN, labels.view(-1), ignore_index=IGNORED)
    if labels.numel() != logits_BN.numel():
        raise InputError(f"labels: expected the shape {tuple(logits_BN.shape)} ({kind}), got {tuple(labels.shape)}")
    loss: Callable[..., Tensor] = F.mse_loss if kind == "regression" else F.binary_cross_entropy_with_logits
    return loss(logits_BN, labels.view_as(logits_BN).float())


def token_classification_loss(logits_BTN: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean cross-entropy of each token's class; labels of -100 do not count."""
    labels = labels_BT.to(logits_BTN.device)
    return F.cross_entropy(logits_BTN.flatten(0, -2).float(), labels.reshape(-1), ignore_index=IGNORED)


def span_loss(start_BT: Tensor, end_BT: Tensor, start_positions: Tensor, end_positions: Tensor) -> Tensor:
    """Mean of the cross-entropies of the first and the last token of the answer.

    Positions are [B] or [B, 1], or one number for one row; those outside the sequence do not count (upstream takes a
    negative one for the first token).
    """
    length, losses = start_BT.shape[1], []
    for logits, positions in ((start_BT, start_positions), (end_BT, end_positions)):
        wanted = positions.to(logits.device).reshape(-1)
        inside = torch.where((wanted >= 0) & (wanted < length), wanted, IGNORED)
        losses.append(F.cross_entropy(logits.float(), inside, ignore_index=IGNORED))
    return (losses[0] + losses[1]) / 2


def last_token_index(input_ids_BT: Tensor | None, batch: int, length: int, pad_token_id: int | None) -> Tensor:
    """Return the index [B] of each row's last token that is not padding, on either side, for pooling.

    Without ids or a pad id it is the last one. Raises InputError for several rows without a pad id.
    """
    if pad_token_id is None and batch != 1:
        raise InputError(
            f"config.pad_token_id is None, so the last token of each of {batch} rows cannot be found; set "
            "model.config.pad_token_id, or pass one row at a time"
        )
    if input_ids_BT is None or pad_token_id is None:
        device = None if input_ids_BT is None else input_ids_BT.device
        return torch.full((batch,), length - 1, device=device)
    positions = torch.arange(length, device=input_ids_BT.device)
    return (positions * (input_ids_BT != pad_token_id)).argmax(dim=-1)
