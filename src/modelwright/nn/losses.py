"""Losses that models share.

Legend: B batch, T tokens, R rows (tokens of any batch), E hidden size, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modelwright.core.errors import InputError
from modelwright.nn.precision import at_least_float32, autocast_dtype
from modelwright.nn.products import add_product_, linear
from modelwright.nn.tracing import is_recorded

# Bytes of the scores that are in memory at once: more rows spare reading and writing the gradient of the weight, but
# above 32 MB malloc gives them back to the system each time.
_BYTES = 2**25
# Scores that are worked on at once: 16 MB and, where a CPU's cache is to hold them, 4 MB in fp32.
_SCORES, _CACHED_SCORES = 2**22, 2**20
# Rows in a multiple of this number suit the kernels of products.
_STEP = 32

IGNORED = -100


class _LabelError(InputError, IndexError):
    """A label that is no class; torch raises an IndexError."""


def cross_entropy(scores_RV: Tensor, labels_R: Tensor, ignore_index: int = IGNORED, *, what: str = "labels") -> Tensor:
    """Mean cross-entropy in nats, computed in fp32; labels equal to `ignore_index` do not count.

    Raises InputError, which names `what`, for labels that are no whole numbers, another number of labels than rows of
    scores, and (on the CPU, where looking costs nothing) labels that are no class.
    """
    rows, classes = scores_RV.shape
    labels_R = _whole_numbers(labels_R, rows, what).to(scores_RV.device)
    try:
        return F.cross_entropy(at_least_float32(scores_RV), labels_R, ignore_index=ignore_index)
    except IndexError as error:
        raise _wrong_label(labels_R, classes, ignore_index, what) from error


def _whole_numbers(labels: Tensor, rows: int, what: str) -> Tensor:
    if labels.is_floating_point() or labels.shape != (rows,):
        raise InputError(
            f"{what}: expected {rows} whole numbers, one for each row of scores, got {labels.numel()} of {labels.dtype}"
        )
    return labels.long()


def _wrong_label(labels_R: Tensor, classes: int, ignore_index: int, what: str) -> _LabelError:
    wrong = labels_R[(labels_R != ignore_index) & ((labels_R < 0) | (labels_R >= classes))]
    return _LabelError(
        f"{what}: expected classes from 0 to {classes - 1}, or {ignore_index} for what does not count, got "
        f"{int(wrong[0])}"
    )


def causal_lm_loss(logits_BTV: Tensor, labels_BT: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Mean cross-entropy, in nats per token, of predicting each token from the ones before it; computed in fp32.

    Position t of the logits is scored against label t+1; labels equal to `ignore_index` do not count.
    """
    return cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index)


def lean_causal_lm_loss(logits_BTV: Tensor, labels_BT: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Return `causal_lm_loss`, with one tensor of the size of the logits in its backward and none in its forward.

    torch's own keeps the log-probabilities and makes three such tensors for the gradient. Where second derivatives are
    wanted, and in recorded calls, it is computed as torch does.
    """
    if is_recorded() or logits_BTV.device.type != "cpu":
        return causal_lm_loss(logits_BTV, labels_BT, ignore_index)
    batch, tokens, classes = logits_BTV.shape
    targets_R = _whole_numbers(labels_BT[:, 1:].flatten(), batch * (tokens - 1), "labels").to(logits_BTV.device)
    # The last token's scores are nobody's.
    targets_BT = F.pad(targets_R.view(batch, -1), (0, 1), value=ignore_index)
    counted_BT = targets_BT != ignore_index
    if bool((counted_BT & ((targets_BT < 0) | (targets_BT >= classes))).any()):
        raise _wrong_label(targets_R, classes, ignore_index, "labels")
    loss: Tensor = _RowsCrossEntropy.apply(  # type: ignore[no-untyped-call]
        logits_BTV.flatten(0, 1), targets_BT.flatten(), counted_BT.flatten()
    )
    return loss


class _RowsCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of the rows that count, some rows at a time."""

    @staticmethod
    def forward(ctx: Any, scores_RV: Tensor, targets_R: Tensor, counted_R: Tensor) -> Tensor:
        targets_R1 = targets_R.masked_fill(~counted_R, 0).unsqueeze(1)
        losses = []
        logsumexp = []
        for part in _row_parts(scores_RV, _SCORES // 16):
            scores = at_least_float32(scores_RV[part])
            logsumexp.append(scores.logsumexp(dim=1, keepdim=True))
            losses.append(logsumexp[-1] - scores.gather(1, targets_R1[part]))
        counted_R1 = counted_R.unsqueeze(1)
        ctx.save_for_backward(scores_RV, targets_R1, counted_R1, torch.cat(logsumexp))
        return torch.cat(losses).masked_fill(~counted_R1, 0.0).sum() / counted_R.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scores_RV, targets_R1, counted_R1, logsumexp_R1 = ctx.saved_tensors
        if torch.is_grad_enabled():
            targets_R = targets_R1.masked_fill(~counted_R1, IGNORED).squeeze(1)
            loss = F.cross_entropy(at_least_float32(scores_RV), targets_R)
            return *torch.autograd.grad(loss, scores_RV, grad, create_graph=True), None, None
        grads_RV = torch.empty_like(scores_RV)
        share_R1 = counted_R1 * (grad / counted_R1.sum())
        for part in _row_parts(scores_RV, _SCORES // 16):
            probs = (at_least_float32(scores_RV[part]) - logsumexp_R1[part]).exp_()
            probs.scatter_add_(1, targets_R1[part], probs.new_full((), -1.0).expand(targets_R1[part].shape))
            grads_RV[part] = probs.mul_(share_R1[part])
        return grads_RV, None, None


def _row_parts(scores_RV: Tensor, most: int) -> Iterator[slice]:
    """Yield the rows that are worked on at once, of which no more than `most` scores, if that is one row at least."""
    rows, classes = scores_RV.shape
    return _slices(rows, max(1, most // classes))


def _slices(rows: int, step: int) -> Iterator[slice]:
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def linear_cross_entropy(
    hidden_RE: Tensor, weight_VE: Tensor, targets_R: Tensor, label_smoothing: float = 0.0, ignore_index: int = IGNORED
) -> Tensor:
    """Return `F.cross_entropy(hidden W^T, targets, label_smoothing=...)`, without the scores (R, V) ever being there.

    The scores are made for some rows at a time, and with them the gradients, so that the backward makes none again.
    Rows whose target is `ignore_index` are not computed; if all are, the mean is NaN, as torch's. Statistics are in
    fp32; under autocast the products are in its dtype. Where second derivatives are wanted, and in recorded calls,
    it is computed as torch does.
    Source: Wijmans et al. 2024 (arXiv 2411.09009), without the gradient filter.
    """
    device = hidden_RE.device.type
    hidden_RE = hidden_RE.to(autocast_dtype(hidden_RE) or hidden_RE.dtype)
    if is_recorded():
        scores_RV = at_least_float32(F.linear(hidden_RE, weight_VE.to(hidden_RE.dtype)))
        return F.cross_entropy(scores_RV, targets_R, ignore_index=ignore_index, label_smoothing=label_smoothing)
    with torch.autocast(device, enabled=False):
        counted = (targets_R != ignore_index).nonzero().squeeze(1)
        if len(counted) < len(targets_R):
            hidden_RE, targets_R = hidden_RE[counted], targets_R[counted]
        loss: Tensor = _LinearCrossEntropy.apply(hidden_RE, weight_VE, targets_R, label_smoothing)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets_R: Tensor, label_smoothing: float) -> Tensor:
        """The products are in the dtype of `hidden`, the gradient of the weight in that of the weight."""
        ctx.save_for_backward(hidden, weight, targets_R)
        ctx.label_smoothing = label_smoothing
        total, ctx.gradients = _of_rows(hidden, weight, targets_R, label_smoothing, ctx.needs_input_grad)
        return total / len(targets_R)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets_R = ctx.saved_tensors
        if torch.is_grad_enabled():
            # As tensors of their own: one may be made of the other, as the states are of a table that the head shares.
            hidden, weight = hidden.view_as(hidden), weight.view_as(weight)
            scores_RV = at_least_float32(F.linear(hidden, weight.to(hidden.dtype)))
            loss = F.cross_entropy(scores_RV, targets_R, label_smoothing=ctx.label_smoothing)
            wanted = [x for x, needed in zip((hidden, weight), ctx.needs_input_grad, strict=False) if needed]
            made_again = iter(torch.autograd.grad(loss, wanted, grad, create_graph=True))
            return *(next(made_again) if needed else None for needed in ctx.needs_input_grad[:2]), None, None
        # Given away, so that what is added to them is added in place; who comes back for them has them made again.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = _of_rows(hidden, weight, targets_R, ctx.label_smoothing, ctx.needs_input_grad)
        # Only now scaled down, by the loss's scale too, so that half precision does not lose small numbers.
        scale = grad / len(targets_R)
        made = zip(gradients, (hidden.dtype, weight.dtype), strict=True)
        return (*(None if each is None else each.mul_(scale).to(dtype) for each, dtype in made), None, None)


def _of_rows(
    hidden: Tensor, weight: Tensor, targets_R: Tensor, label_smoothing: float, needed: tuple[bool, ...]
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """Return the sum of the losses of all rows, and its gradients in fp32 or wider, those that are needed."""
    weight = weight.to(hidden.dtype)
    make = torch.empty_like if len(targets_R) else torch.zeros_like
    d_hidden, d_weight = (
        make(x, dtype=torch.promote_types(x.dtype, torch.float32)) if wanted else None
        for x, wanted in zip((hidden, weight), needed, strict=False)
    )
    total = at_least_float32(hidden.new_zeros(()))
    for rows in _shares(len(targets_R), weight.shape[0], hidden.dtype):
        h_RE, target_R1 = hidden[rows], targets_R[rows, None]
        scores_RV = linear(h_RE, weight)
        for part in _row_parts(scores_RV, _CACHED_SCORES if scores_RV.is_cpu else _SCORES):
            total += _to_gradients(scores_RV[part], target_R1[part], label_smoothing, any(needed[:2]))
        if d_hidden is not None:
            d_hidden[rows] = linear(scores_RV, weight.t())
        if d_weight is not None:
            add_product_(d_weight, scores_RV.t(), h_RE, beta=1 if rows.start else 0)
        del scores_RV  # Not beside those of the next rows.
    return total, (d_hidden, d_weight)


def _to_gradients(scores_RV: Tensor, target_R1: Tensor, label_smoothing: float, wanted: bool) -> Tensor:
    """Put the gradients of rows, if they are wanted, in the place of their scores; return the sum of their losses."""
    d_RV = at_least_float32(scores_RV)
    of_target_R1 = d_RV.gather(1, target_R1)
    if label_smoothing:
        mean_R1 = d_RV.mean(dim=1, keepdim=True)
        of_target_R1 = (1 - label_smoothing) * of_target_R1 + label_smoothing * mean_R1
    highest_R1 = d_RV.amax(dim=1, keepdim=True)
    # In place of the scores: a new block of memory costs more time than the softmax, and exp_ alone costs more.
    torch.softmax(d_RV, dim=1, out=d_RV)
    # The highest probability is 1 / sum(exp(score - highest)).
    loss = (highest_R1 - d_RV.amax(dim=1, keepdim=True).log() - of_target_R1).sum()
    if not wanted:
        return loss
    d_RV.scatter_add_(1, target_R1, d_RV.new_full((), label_smoothing - 1).expand_as(target_R1))
    if label_smoothing:
        d_RV -= label_smoothing / scores_RV.shape[1]
    if d_RV is not scores_RV:
        scores_RV.copy_(d_RV)
    return loss


def _shares(rows: int, classes: int, dtype: torch.dtype) -> Iterator[slice]:
    """Yield the rows whose scores are in memory at once, as few times and as many each as fit."""
    most = _BYTES // dtype.itemsize // classes
    count = -(-rows // max(1, most))
    step = max(1, -(-rows // max(1, count)))
    if most > _STEP:
        step = min(most - most % _STEP, step + -step % _STEP)
    return _slices(rows, step)
