"""The loop of beam search, plain, sampled or in diverse groups: one call of the model, then a step of each group.

Legend: B batch items, K beams of an item, G groups of S beams each (K = G * S), V vocabulary, T tokens so far. The rows
of the batch that runs are B * K, those of an item together, those of a group together within it.
"""

from typing import Any

import torch
from torch import Tensor

from modelwright.generation.beam_state import BeamGroup, BeamRules, Hypotheses
from modelwright.generation.cache_rows import reorder_beams, select_rows
from modelwright.generation.decode import Decoding, call_flags, drawn
from modelwright.generation.kept import Kept
from modelwright.generation.outputs import GenerateOutput
from modelwright.generation.prepare import as_list, repeat_rows
from modelwright.generation.protocol import GenerativeModel, is_encoder_decoder

# Tokens of the vocabulary of which the likeliest is looked up first.
_STRETCH = 128


def beam_search(
    model: GenerativeModel, input_ids: Tensor, model_kwargs: dict[str, Any], run: Decoding
) -> Tensor | GenerateOutput:
    """Return the best hypotheses of each prompt [B, T], `num_return_sequences` rows each, or a ModelOutput with more.

    The prompts are read once each, not once for each beam, where nothing of the first call is to be kept for each beam.
    """
    settings, two_parts = run.settings, is_encoder_decoder(model)
    kept, flags = Kept(settings, encoder_decoder=two_parts), call_flags(model, settings)
    beams = settings.num_beams
    ids, is_shared = input_ids, model._can_repeat_cache() and not kept.needs_all_rows
    if not is_shared:
        ids, model_kwargs = repeat_rows(model, ids, model_kwargs, beams)
    groups = _groups(input_ids, run)
    in_order = torch.arange(len(input_ids) * beams, device=input_ids.device)
    while True:
        inputs = {**model.prepare_inputs_for_generation(ids, **model_kwargs), **flags}
        outputs = model(**inputs)
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, two_parts)
        logits = model._next_token_logits(outputs, inputs)
        # A copy only if it is kept, as log_softmax makes one.
        logits = logits.to(device=input_ids.device, dtype=torch.float32, copy=bool(settings.output_logits))
        if is_shared:
            logits = logits.repeat_interleave(beams, dim=0)
            ids, model_kwargs = _repeat_with_cache(model, ids, model_kwargs, beams)
            is_shared = False
        scores = _step(groups, ids, logits.log_softmax(dim=-1), kept, run)
        kept.add(logits, scores, outputs)
        del outputs, logits
        ids, came_from = _rows_of(groups)
        moved = (came_from != in_order).any()
        is_over = torch.stack([group.is_over_B for group in groups]).all()
        # One transfer for both answers.
        is_over, has_moved = torch.stack([is_over, moved]).tolist()
        if is_over:
            break
        if has_moved:
            _reorder(model, model_kwargs, came_from)
    return _result(groups, input_ids.shape[1], kept, model_kwargs, run)


def _groups(prompt_BT: Tensor, run: Decoding) -> list[BeamGroup]:
    settings, prompt = run.settings, prompt_BT.shape[1]
    beams, groups = settings.num_beams, settings.num_beam_groups or 1
    rules = BeamRules(
        length_penalty=1.0 if settings.length_penalty is None else settings.length_penalty,
        early_stopping=settings.early_stopping or False,
        most_new=run.longest - prompt,
        with_ended=groups > 1,
        end_ids=torch.tensor(as_list(settings.eos_token_id), dtype=torch.long, device=prompt_BT.device),
        pad_id=run.pad_id,
    )
    rows_BGS = torch.arange(len(prompt_BT) * beams, device=prompt_BT.device).view(-1, groups, beams // groups)
    prompt_BST = prompt_BT[:, None].expand(-1, beams // groups, -1)
    return [BeamGroup(prompt_BST, rules, rows_BGS[:, group]) for group in range(groups)]


def _step(groups: list[BeamGroup], ids: Tensor, scores: Tensor, kept: Kept, run: Decoding) -> Tensor:
    """Let each group go on by one token, the later ones knowing what the earlier ones chose.

    ids [B * K, T], scores [B * K, V] log probabilities; returns the scores after the processors.
    """

    def choose(scores_BKV: Tensor, before_BK: Tensor, count: int) -> tuple[Tensor, Tensor]:
        if not run.settings.do_sample:
            return _best(scores_BKV, before_BK, count)
        sums = (scores_BKV + before_BK[..., None]).flatten(1)
        # Without replacement, so that the candidates are different ones.
        places = drawn(sums, count, run.generator)
        return sums.gather(1, places), places

    def ends(candidate_ids: Tensor) -> Tensor:
        return run.criteria(candidate_ids, kept.scores)

    if len(groups) == 1:
        scores = run.processors(ids, scores, may_write=True)
        groups[0].step(scores.view(-1, run.settings.num_beams, scores.shape[1]), choose, ends)
        return scores
    items, size = groups[0].running.scores.shape
    ids_BGST = ids.view(items, len(groups), size, -1)
    scores_BGSV = scores.view(items, len(groups), size, -1)
    chosen_BGS = torch.zeros_like(ids_BGST[..., 0])
    processed = []
    for number, group in enumerate(groups):
        of_group = run.processors(
            ids_BGST[:, number].flatten(0, 1),
            scores_BGSV[:, number].flatten(0, 1),
            current_tokens=chosen_BGS.flatten(),
            beam_group_idx=number,
        )
        processed.append(of_group.view(items, size, -1))
        was_over_B1 = group.is_over_B[:, None]
        group.step(processed[-1], choose, ends)
        # A group that is over for an item runs on beside the others, and does not keep them from anything.
        chosen_BGS[:, number] = torch.where(was_over_B1, run.pad_id, group.running.ids[..., -1])
    return torch.stack(processed, dim=1).flatten(0, 2)


def _best(scores_BKV: Tensor, before_BK: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest sums of the scores and what each beam had before, and their places in [B, K * V].

    No beam has more than `count` among them, so that not all sums are made, which takes as long as to find the best.
    """
    vocabulary = scores_BKV.shape[2]
    values_BKN, tokens_BKN = _largest(scores_BKV, min(count, vocabulary))
    sums_BN = (values_BKN + before_BK[..., None]).flatten(1)
    best = sums_BN.topk(count, dim=1)
    beams = best.indices // values_BKN.shape[2]
    return best.values, beams * vocabulary + tokens_BKN.flatten(1).gather(1, best.indices)


def _largest(scores_BKV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest scores of each beam and their tokens, [B, K, count], as `topk` does.

    They lie in the `count` stretches of the vocabulary whose largest scores are the largest, and to find these takes a
    third of the time of `topk` of all.
    """
    whole = scores_BKV.shape[2] // _STRETCH
    if whole <= 2 * count:
        best = scores_BKV.topk(count, dim=2)
        return best.values, best.indices
    stretches = scores_BKV[..., : whole * _STRETCH].view(*scores_BKV.shape[:2], whole, _STRETCH)
    numbers_BKC1 = stretches.amax(dim=3).topk(count, dim=2).indices[..., None]
    columns = torch.arange(scores_BKV.shape[2], device=scores_BKV.device)
    tokens_BKM = (numbers_BKC1 * _STRETCH + columns[:_STRETCH]).flatten(2)
    # And in what is left of the vocabulary behind the last one.
    rest = columns[whole * _STRETCH :].expand(*tokens_BKM.shape[:2], -1)
    tokens_BKM = torch.cat([tokens_BKM, rest], dim=2)
    best = scores_BKV.gather(2, tokens_BKM).topk(count, dim=2)
    return best.values, tokens_BKM.gather(2, best.indices)


def _rows_of(groups: list[BeamGroup]) -> tuple[Tensor, Tensor]:
    """Return the ids of the rows to run next, [B * K, T], and the rows that their last tokens were chosen from."""
    ids = torch.cat([group.running.ids for group in groups], dim=1).flatten(0, 1)
    return ids, torch.cat([group.running.rows[..., -1] for group in groups], dim=1).flatten()


def _repeat_with_cache(
    model: GenerativeModel, ids: Tensor, model_kwargs: dict[str, Any], beams: int
) -> tuple[Tensor, dict[str, Any]]:
    """Return ids and keywords with each row once for each beam, after a call in which it ran once."""
    caches = {name: model_kwargs[name] for name in model._cache_names if model_kwargs.get(name) is not None}
    others = {name: value for name, value in model_kwargs.items() if name not in caches}
    rows = torch.arange(len(ids), device=ids.device).repeat_interleave(beams)
    ids, others = repeat_rows(model, ids, others, beams)
    select = reorder_beams if model._shares_source else select_rows
    return ids, others | {name: select(cache, rows) for name, cache in caches.items()}


def _reorder(model: GenerativeModel, model_kwargs: dict[str, Any], rows: Tensor) -> None:
    for name in model._cache_names:
        if model_kwargs.get(name) is not None:
            model_kwargs[name] = model._reorder_cache(model_kwargs[name], rows)


def _result(
    groups: list[BeamGroup], prompt: int, kept: Kept, model_kwargs: dict[str, Any], run: Decoding
) -> Tensor | GenerateOutput:
    best = groups[0].finished
    for group in groups[1:]:
        best = best.joined(group.finished)
    best = best.take(best.scores.topk(run.settings.num_return_sequences or 1, dim=1).indices)
    best = Hypotheses(best.ids.flatten(0, 1), best.scores.flatten(), best.rows.flatten(0, 1))
    new = int((best.rows >= 0).sum(dim=1).max())
    sequences = best.ids[:, : prompt + new]
    if not run.settings.return_dict_in_generate:
        return sequences
    scores = best.scores if run.settings.output_scores else None
    return kept.result(sequences, model_kwargs, {"sequences_scores": scores, "beam_indices": best.rows[:, :new]})
