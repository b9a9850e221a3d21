"""Speculative decoding with the model's own drafts: a second stream guesses the token behind the one just chosen.

ProphetNet's predict stream 1 scores a token by all tokens before it, stream 2 by all but the last of these, so stream 2
knows a token one call before stream 1. A call reads three columns behind the cache:

    column     x[n - 1]       draft of x[n]    no token yet
    stream 1   x[n]           x[n + 1], if the draft is x[n]
    stream 2                  draft of         draft of
                              x[n + 1]         x[n + 2]

Whatever stream 1 chooses at the first column becomes x[n]. If that is the draft, what it says at the second column
counts too, and the call has given two tokens; else the cache is cut back to x[n - 1]. Each token is chosen by stream 1,
with the processors, criteria and random numbers of plain decoding, so the text is the same, up to the rounding of calls
of several tokens. A batch goes on by two where the drafts of all its rows are right; a row that was right alone has its
next token already, which is its next draft.

Sources: blockwise drafts and verification, Stern et al. 2018 (arXiv 1811.03115); the streams, Qi et al. 2020.
"""

from typing import Any

import torch
from torch import Tensor

from modelwright.generation.decode import Decoding, Rows, call_flags
from modelwright.generation.outputs import GenerateOutput
from modelwright.generation.protocol import GenerativeModel, is_encoder_decoder


def speculative_decode(
    model: GenerativeModel, input_ids: Tensor, model_kwargs: dict[str, Any], run: Decoding
) -> Tensor | GenerateOutput:
    """Return what `decode` returns, in fewer calls; raises what `_draft_keywords` of the model does.

    A prompt of several tokens is read without a draft, as it would be read by one more stream for one token's sake.
    """
    two_parts, flags, drafting = is_encoder_decoder(model), call_flags(model, run.settings), model._draft_keywords()
    rows = Rows(input_ids, run, encoder_decoder=two_parts)
    draft: Tensor | None = None
    prompt = input_ids.shape[1]
    while rows.go_on:
        known = rows.ids.shape[1]
        columns = [] if known == prompt > 1 else _columns(rows.ids, draft, run.longest - 1)
        ids = torch.cat([rows.ids, *columns], dim=1)
        # Only the masks grow: there is no output yet that a cache could come from.
        grown = model._update_model_kwargs_for_generation(None, model_kwargs, two_parts, len(columns))
        inputs = {**model.prepare_inputs_for_generation(ids, **grown), **flags, **(drafting if columns else {})}
        outputs = model(**inputs)
        right = _advance(rows, draft if columns else None, outputs, len(columns))
        new = rows.ids.shape[1] - known
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, two_parts, new)
        if columns:
            _cut_back(model, model_kwargs, known + new - 1)
        draft = _next_draft(rows, right, outputs, new, len(columns))
        del outputs
    return rows.result(model_kwargs)


def _columns(ids: Tensor, draft: Tensor | None, most: int) -> list[Tensor]:
    """Return what is read behind the ids, each [batch, 1]: the draft, and any token where only stream 2 is asked.

    `most` tokens are read in all, as many as plain decoding reads, for which positions and a cache of fixed size do.
    """
    tokens = ids[:, -1] if draft is None else draft
    columns = [tokens[:, None]] * (1 if draft is None else 2)
    return columns[: max(0, most - ids.shape[1])]


def _advance(rows: Rows, draft: Tensor | None, outputs: Any, columns: int) -> Tensor | None:
    """Add a token, and where all drafts [batch] are right one more; return which are right, None without drafts."""
    logits = outputs.logits[:, -1 - columns :]
    chosen = rows.add(logits[:, 0], outputs)
    if draft is None:
        return None
    right = chosen == draft
    if rows.go_on and bool(right.all()):
        rows.add(logits[:, 1], outputs)
    return right


def _next_draft(rows: Rows, right: Tensor | None, outputs: Any, new: int, columns: int) -> Tensor | None:
    """Return a guess at each row's next token [batch], None where the call did not look so far.

    After `new` tokens it is at the column `new`, which stands where the last of them belongs.
    """
    if columns < new:
        return None
    place = new - 1 - columns
    guess = outputs.logits_ngram[:, 0, place].argmax(dim=-1)
    if right is not None and new == 1:
        guess = torch.where(right, outputs.logits[:, place].argmax(dim=-1), guess)
    # A finished row reads padding, as in plain decoding.
    return rows.or_pad(guess.to(rows.ids.device))


def _cut_back(model: GenerativeModel, model_kwargs: dict[str, Any], tokens: int) -> None:
    for name in model._cache_names:
        if model_kwargs.get(name) is not None:
            model_kwargs[name].crop(tokens)
