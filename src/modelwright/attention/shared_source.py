"""Attention of many rows (beams, sampled answers) to the states of one source, whose keys none of them copies.

Legend: B rows of queries, C rows of the source (B is a multiple of C, and the n-th stretch of B / C rows reads the n-th
source), T query tokens, S tokens of the source, H heads, D head size, E hidden size.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from modelwright.attention.masks import create_bidirectional_mask
from modelwright.core.errors import InputError
from modelwright.nn.tracing import is_jit_traced


def attend_to_shared(
    kernel: Callable[..., Any],
    module: Any,
    query_BHTD: Tensor,
    key_CHSD: Tensor,
    value_CHSD: Tensor,
    mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return what `kernel` does, (B, T, H, D) and the probabilities (B, H, T, S) or None; `options` go to it.

    `mask` broadcasts to (C, H, T, S).
    """
    B, H, T, _ = query_BHTD.shape
    # A recorded call has one source for each row.
    rows = 1 if is_jit_traced() else B // key_CHSD.shape[0]
    if rows == 1:
        return kernel(module, query_BHTD, key_CHSD, value_CHSD, mask, **options)  # type: ignore[no-any-return]
    # Rows that share keys become queries of one row.
    query = query_BHTD.view(-1, rows, *query_BHTD.shape[1:]).transpose(1, 2).flatten(2, 3)
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, rows, 1)
    attended, weights = kernel(module, query, key_CHSD, value_CHSD, mask, **options)
    attended = attended.reshape(B, T, *attended.shape[2:])
    if weights is not None:
        weights = weights.view(-1, H, rows, T, weights.shape[3]).transpose(1, 2).flatten(0, 1)
    return attended, weights


def mask_of_source(where: str, config: Any, hidden_BTE: Tensor, states_CSE: Tensor, mask: Tensor | None) -> Any:
    """Return the mask of the source's states as the config's kernel takes it, or None where all may be seen.

    `mask` has ones and zeros, (B or C, S), or is ready, with four dimensions. Raises InputError, beginning with
    `where`, if B is no multiple of C.
    """
    rows = hidden_BTE.shape[0] // states_CSE.shape[0]
    if hidden_BTE.shape[0] % states_CSE.shape[0]:
        raise InputError(
            f"{where}: expected encoder_hidden_states with {hidden_BTE.shape[0]} rows, as the decoder's inputs have, "
            f"or a divisor of it, got {states_CSE.shape[0]}"
        )
    if mask is not None and rows > 1 and mask.shape[0] == hidden_BTE.shape[0]:
        mask = mask[::rows]
    return create_bidirectional_mask(
        config=config,
        inputs_embeds=hidden_BTE[: states_CSE.shape[0], :1],
        attention_mask=mask,
        encoder_hidden_states=states_CSE,
    )
