"""Attention of a few queries to many keys, as in decoding, written out.

On the CPU torch's fused kernel is made for many queries: for two to sixteen of them, in enough heads, two products and
a softmax take up to half of the time less, and for one query with many keys a tenth less.

Legend: B batch, H heads, T query tokens, S key tokens, D head size.
"""

import torch
from torch import Tensor

from modelwright.nn.products import is_watched

# Where the fused kernel is as fast or faster: more queries, fewer heads of the batch, few keys of a lone query.
_MOST_QUERIES, _LEAST_HEADS, _LEAST_KEYS = 16, 32, 128


def suits_few(query_BHTD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Tensor | None) -> bool:
    """Tell whether `attend_few` takes these and is faster than torch's kernel: fp32 on the CPU, without gradients.

    Nor under autocast, which would round the scores.
    """
    # Asked first: a tracer would also write down what is asked of sizes.
    if torch.is_grad_enabled() or is_watched(query_BHTD, key_BHSD, value_BHSD) or torch.is_autocast_enabled("cpu"):
        return False
    B, H, T, _ = query_BHTD.shape
    return (
        T <= _MOST_QUERIES
        and B * H >= _LEAST_HEADS
        and (T > 1 or key_BHSD.shape[2] >= _LEAST_KEYS)
        and query_BHTD.dtype == torch.float32
        and query_BHTD.is_cpu
        and key_BHSD.shape[:2] == (B, H)
        and (mask is None or mask.dtype == torch.bool)
        # Heads that are no stretch of memory would be copied.
        and all(each.stride(0) == H * each.stride(1) for each in (key_BHSD, value_BHSD))
    )


def attend_few(
    query_BHTD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Tensor | None, scale: float | None
) -> Tensor:
    """Return the attended values (B, H, T, D); a query that may see no key gets zeros.

    `mask` is boolean (True: may be seen) and broadcasts to (B, H, T, S); `scale` None is D ** -0.5.
    """
    B, H, T, D = query_BHTD.shape
    query, key, value = (each.flatten(0, 1) for each in (query_BHTD, key_BHSD, value_BHSD))
    scale = D**-0.5 if scale is None else scale
    scores = torch.baddbmm(query.new_empty(1, 1, 1), query, key.transpose(1, 2), beta=0, alpha=scale)
    if mask is None:
        return torch.bmm(scores.softmax(dim=-1), value).view(B, H, T, -1)
    hidden, scores_BHTS = ~mask, scores.view(B, H, T, -1)
    # Not -inf, of which alone softmax makes NaN; what is hidden gets its zero behind it.
    weights_BHTS = scores_BHTS.masked_fill_(hidden, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return torch.bmm(weights_BHTS.masked_fill_(hidden, 0.0).flatten(0, 1), value).view(B, H, T, -1)
