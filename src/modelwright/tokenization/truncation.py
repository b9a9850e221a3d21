"""Cut token ids to a length: pure functions on lists."""

from typing import Any

from modelwright.core.errors import InputError
from modelwright.tokenization.strategies import TruncationStrategy


def keep_longest_first(first: int, second: int, total: int) -> tuple[int, int]:
    """Return how many tokens of each text are kept when tokens are taken, one by one, from the longer text.

    Of two texts of equal length the second one loses the token. `total` is the number of tokens that may stay.
    """
    if first + second <= total:
        return first, second
    kept_second = min(second, max(total // 2, total - first))
    return total - kept_second, kept_second


def truncate_pair(
    where: str,
    ids: list[int],
    pair_ids: list[int] | None,
    *,
    total: int,
    strategy: TruncationStrategy,
    side: str = "right",
) -> tuple[list[int], list[int] | None]:
    """Return both texts cut to `total` tokens together; the side named by `side` loses its tokens.

    Raises InputError when the strategy cannot reach that length, instead of returning a row that is too long.
    """
    first, second = len(ids), len(pair_ids or ())
    excess = first + second - total
    if excess <= 0 or strategy is TruncationStrategy.DO_NOT_TRUNCATE:
        return ids, pair_ids
    if strategy is TruncationStrategy.LONGEST_FIRST:
        reachable = total >= 0
        if reachable:
            first, second = keep_longest_first(first, second, total)
    elif strategy is TruncationStrategy.ONLY_FIRST:
        reachable, first = excess <= first, first - excess
    else:
        reachable, second = excess <= second, second - excess
    if not reachable:
        raise InputError(
            f"{where}: truncation={strategy.value!r} cannot take {excess} tokens from texts of {len(ids)} and "
            f"{len(pair_ids or ())} tokens: raise max_length or choose truncation='longest_first'."
        )
    return _cut(ids, first, side), None if pair_ids is None else _cut(pair_ids, second, side)


def overflowing_tokens(
    where: str,
    ids: list[int],
    pair_ids: list[int] | None,
    total: int,
    strategy: TruncationStrategy,
    side: str,
    stride: int,
) -> dict[str, Any]:
    """Return what a cut to `total` tokens takes away, with `stride` tokens of what stays, and how many it takes.

    Raises InputError for a pair that loses tokens of both texts, where no one list of them exists.
    """
    excess = len(ids) + len(pair_ids or ()) - total
    lost: list[int] = []
    if excess > 0:
        if strategy is TruncationStrategy.LONGEST_FIRST and pair_ids is not None:
            raise InputError(
                f"{where}: return_overflowing_tokens of a pair needs truncation='only_first' or 'only_second', or a "
                "fast tokenizer."
            )
        source = pair_ids or [] if strategy is TruncationStrategy.ONLY_SECOND else ids
        window = min(len(source), excess + stride)
        lost = source[:window] if side == "left" else source[len(source) - window :]
    return {"overflowing_tokens": lost, "num_truncated_tokens": excess}


def _cut(ids: list[int], keep: int, side: str) -> list[int]:
    return ids[len(ids) - keep :] if side == "left" else ids[:keep]
