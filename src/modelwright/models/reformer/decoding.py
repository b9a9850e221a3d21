"""Reading a prompt into a cache and going on from it, token by token.

A row's masked tokens are no tokens here: its text is read as if it stood alone, so that neither the other rows nor the
side of the padding change it. Shapes: B rows, L columns of this call, T tokens of a row's text, E hidden size, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.models.reformer.cache import Factors, LocalCache, LSHCache, ReformerCache, Step
from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.configuration_reformer import bucket_factors
from modelwright.models.reformer.hashing import choose_num_buckets
from modelwright.models.reformer.layer import ReformerLayer
from modelwright.models.reformer.lsh_attention import LSHSelfAttention, needs_hashing
from modelwright.models.reformer.one_token import CalledLayer, OneToken, PlainLayers
from modelwright.models.reformer.windows import split_heads
from modelwright.nn.precision import at_least_float32
from modelwright.nn.tracing import is_recorded

if TYPE_CHECKING:
    from modelwright.models.reformer.backbone import ReformerModel, ReformerModelOutput


@dataclass(frozen=True)
class CachedCall:
    """The arguments of one call of the model that has to do with a cache."""

    input_ids: Tensor | None
    inputs_embeds: Tensor | None
    position_ids: Tensor | None
    attention_mask: Tensor | None
    head_mask: Tensor | None
    num_hashes: int
    legacy: bool
    output_attentions: bool
    output_hidden_states: bool

    @property
    def given(self) -> Tensor:
        """The ids or the embeddings."""
        given = self.input_ids if self.input_ids is not None else self.inputs_embeds
        assert given is not None
        return given

    @property
    def inputs(self) -> dict[str, Tensor | None]:
        """The inputs at all places."""
        return {"input_ids": self.input_ids, "inputs_embeds": self.inputs_embeds, "position_ids": self.position_ids}

    def part(self, rows: Any, columns: Any) -> dict[str, Tensor | None]:
        """Return the inputs at some places."""
        batch = self.given.shape[0]
        return {
            name: None if value is None else value.expand(batch, *value.shape[1:])[rows, columns]
            for name, value in self.inputs.items()
        }


def factors_of(model: ReformerModel, length: int, num_hashes: int) -> Factors:
    """Return what a text of `length` tokens, padding included, is hashed with; None if it is attended to in full."""
    if model.lsh_chunk_length is None or not needs_hashing(
        length, num_hashes, mode=model.attention_mode, chunk_length=model.lsh_chunk_length, window=model.lsh_window
    ):
        return None
    configured = model.config.num_buckets
    if configured is None:
        configured = choose_num_buckets(length, model.lsh_chunk_length, model.config.max_position_embeddings)
    return tuple(bucket_factors(configured))


def read_prompt(model: ReformerModel, call: CachedCall) -> ReformerModelOutput:
    """Read the prompt, rows of one length together, and return what the model gives, with a cache.

    What a masked token gives is 0. Raises InputError for attention probabilities of rows of several lengths.
    """
    batch, columns = call.given.shape[:2]
    cache = _new_cache(model, batch, call)
    cache.columns = columns
    mask = call.attention_mask
    if mask is None or bool((mask != 0).all()):
        lengths = [columns] * batch
    else:
        lengths = (mask != 0).sum(dim=1).tolist()
    groups = {length: [row for row, each in enumerate(lengths) if each == length] for length in set(lengths)}
    if 0 in groups:
        raise InputError(f"Reformer: expected at least one token in each row, got none in rows {groups[0]}")
    if len(groups) > 1 and (call.output_attentions or call.legacy):
        raise InputError(
            f"Reformer: expected rows of one length for output_attentions or legacy_cache with a cache, got {lengths}; "
            "pass use_cache=False, or rows of one length"
        )
    cache.lengths = lengths
    step = _step(model, cache)
    outputs: list[ReformerModelOutput] = []
    places: list[tuple[Any, Any]] = []
    for length, rows in groups.items():
        everywhere = length == columns and len(groups) == 1
        if everywhere:
            inputs = call.inputs
            places.append((slice(None), slice(None)))
        else:
            assert mask is not None
            at = (torch.tensor(rows, device=mask.device)[:, None], (mask[rows] != 0).nonzero()[:, 1].view(-1, length))
            inputs = call.part(*at)
            places.append(at)
        outputs.append(
            model.encode(
                **inputs,
                head_mask=call.head_mask,
                num_hashes=cache.num_hashes,
                output_attentions=call.output_attentions,
                output_hidden_states=call.output_hidden_states,
                seed=cache.seed,
                keep=_Keep(model, cache, rows, length, step),
                keeps_states=call.legacy,
            )
        )
    output: ReformerModelOutput = _together(outputs, places, (batch, columns))
    output.past_buckets_states = cache.to_legacy_cache() if call.legacy else cache
    return output


@torch.no_grad()
def go_on(model: ReformerModel, past: Any, call: CachedCall) -> ReformerModelOutput:
    """Read the new tokens (B, L) one after the other; `past` is a cache, or pairs of buckets and states.

    There are no gradients: keys are kept without a graph. `attentions` are (B, H, L, T), for each token of the text.
    Raises InputError for what does not fit the cache.
    """
    from modelwright.models.reformer.backbone import ReformerModelOutput

    cache = past if isinstance(past, ReformerCache) else from_legacy(model, past, call)
    batch, columns = call.given.shape[:2]
    _check(cache, batch, columns, call)
    model.embeddings.check_length(cache.get_seq_length() + columns)
    if call.legacy or torch.compiler.is_compiling():
        last, states, attentions = _read(model, cache, call, columns)
    else:
        # Without the bookkeeping for a later graph, the many small operations of a token cost less; what the caller
        # gets are ordinary tensors again.
        with torch.inference_mode():
            last, states, attentions = _read(model, cache, call, columns)
        last = last.clone()
        states, attentions = (each and tuple(x.clone() for x in each) for each in (states, attentions))
    return ReformerModelOutput(
        last_hidden_state=last,
        past_buckets_states=cache.to_legacy_cache() if call.legacy else cache,
        hidden_states=states,
        attentions=attentions,
    )


# The last hidden states, and per layer the hidden states and the attention probabilities if they are asked for.
_Found = tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]


def _read(model: ReformerModel, cache: ReformerCache, call: CachedCall, columns: int) -> _Found:
    """Read the new tokens one after the other."""
    found: list[_Found] = []
    for column in range(columns):
        inputs = call.inputs if columns == 1 else call.part(slice(None), slice(column, column + 1))
        if inputs["position_ids"] is None:
            words = inputs["inputs_embeds"]
            if words is None:
                words = model.embeddings.word_embeddings(inputs["input_ids"])
            if min(cache.lengths) == max(cache.lengths) and not model.training:
                embedded = model.embeddings.add_position(words, cache.lengths[0])
            else:
                positions = torch.tensor(cache.lengths, device=call.given.device).unsqueeze(1)
                embedded = model.embeddings.add_positions(words, positions)
        else:
            embedded = model.embeddings(inputs["input_ids"], inputs["position_ids"], inputs["inputs_embeds"])
        found.append(_decode(model, embedded, cache, call))
        cache.columns += 1
    if columns == 1:
        return found[0]
    last, states, attentions = zip(*found, strict=True)
    return torch.cat(last, dim=1), _layerwise(torch.cat, states), _layerwise(_grown, attentions)


def _decode(model: ReformerModel, embedded: Tensor, cache: ReformerCache, call: CachedCall) -> _Found:
    """Run the layers on one token of each row, (B, 1, E)."""
    from modelwright.models.reformer.backbone import layerwise_head_mask

    step = _step(model, cache, grow=1)
    step.need_probs = call.output_attentions
    head_mask = layerwise_head_mask(call.head_mask, len(cache.layers), model.num_heads)
    x1 = x2 = at_least_float32(embedded).squeeze(1)
    states, attentions = [embedded], []
    for index, (layer, kept) in enumerate(zip(_layers(model, cache, step, head_mask), cache.layers, strict=True)):
        normed, projected = layer.project(x2)
        attended, probs, tokens = kept.attend(projected, step, layer.call)
        if cache.states is not None:
            cache.states[index] = torch.cat([cache.states[index], normed.unsqueeze(1)], dim=1)
        x1 = layer.add_attended(x1, attended)
        x2 = layer.add_fed(x2, x1)
        if call.output_hidden_states:
            states.append(x2.to(embedded.dtype).unsqueeze(1))
        if probs is not None:
            assert tokens is not None
            if head_mask is not None:
                own = model.encoder.layers[index].attention.own_heads(head_mask[index])  # type: ignore[operator, union-attr]
                probs = probs * own.unsqueeze(-1)
            attentions.append(_by_token(probs, torch.tensor(tokens), max(step.lengths) + 1))
    cache.lengths = [length + 1 for length in cache.lengths]
    last: Tensor = model.encoder.layer_norm(torch.cat([x1, x2], dim=-1).unsqueeze(1))
    return (
        last,
        tuple(states) if call.output_hidden_states else None,
        tuple(attentions) if call.output_attentions else None,
    )


def _layers(model: ReformerModel, cache: ReformerCache, step: Step, head_mask: Tensor | None) -> Sequence[OneToken]:
    """Return the layers, by their weights alone where that is the same; those are looked up once for a text.

    Or twice: where somebody begins to watch, or weights move. Where the layers are more than that, they stay called.
    """
    blocks = model.encoder.layers
    if head_mask is None and not is_recorded():
        if cache.plain is None or (cache.plain.layers is not None and not cache.plain.hold(blocks)):
            cache.plain = PlainLayers(blocks)
        if cache.plain.layers is not None:
            return cache.plain.layers
    return [
        CalledLayer(block, step.call, LayerCall(index, False, None if head_mask is None else head_mask[index]))  # type: ignore[arg-type]
        for index, block in enumerate(blocks)
    ]


def from_legacy(model: ReformerModel, past: Any, call: CachedCall) -> ReformerCache:
    """Return a cache of the states in pairs (buckets, states); tokens are hashed again, with rotations drawn once.

    A cache object of transformers, which yields such pairs, is taken as well. Raises InputError for anything else.
    """
    layers = len(model.encoder.layers)
    pairs = list(past) if isinstance(past, Iterable) else []
    states = [pair[1] for pair in pairs if isinstance(pair, Sequence) and len(pair) == 2]
    shapes = {tuple(each.shape) for each in states if isinstance(each, Tensor)}
    width = model.config.hidden_size
    if len(states) != layers or len(shapes) != 1 or len(next(iter(shapes))) != 3 or next(iter(shapes))[2] != width:
        raise InputError(
            f"Reformer: expected past_buckets_states to be the cache of an earlier output, or {layers} pairs of "
            f"buckets and hidden states (batch, tokens, {width}), got {type(past).__name__} of {len(pairs)} with "
            f"states of shapes {sorted(shapes)}" + ("" if pairs else "; leave out what is empty")
        )
    batch, length = states[0].shape[:2]
    cache = _new_cache(model, batch, call)
    cache.lengths, cache.columns = [length] * batch, length
    keep = _Keep(model, cache, list(range(batch)), length, _step(model, cache))
    for index, (block, normed) in enumerate(zip(model.encoder.layers, states, strict=True)):
        assert isinstance(block, ReformerLayer)
        keep(index, normed, block.attention.self_attention.project(normed))
    return cache


@dataclass(frozen=True)
class _Keep:
    """Puts what the layers project in one call into the rows of a cache."""

    model: ReformerModel
    cache: ReformerCache
    rows: list[int]
    length: int
    step: Step

    def __call__(self, index: int, normed: Tensor | None, projected: tuple[Tensor, ...]) -> None:
        kept, block = self.cache.layers[index], self.model.encoder.layers[index]
        heads = block.attention.self_attention.num_heads  # type: ignore[union-attr]
        texts = tuple(split_heads(x.detach()[:, : self.length], heads).transpose(1, 2) for x in projected)  # type: ignore[arg-type]
        kept.fill(self.rows, len(self.cache.lengths), texts)
        if isinstance(kept, LSHCache):
            kept.hash_rows(self.rows, self.step, LayerCall(index, False))
        if self.cache.states is not None:
            assert normed is not None
            self.cache.states[index] = normed.detach()[:, : self.length].clone()


def _new_cache(model: ReformerModel, batch: int, call: CachedCall) -> ReformerCache:
    for kind in ("local", "lsh"):
        after = getattr(model.config, f"{kind}_num_chunks_after")
        if not model.config.is_decoder or (kind in model.config.attn_layers and after):
            raise InputError(
                f"Reformer: a cache needs is_decoder=True and {kind}_num_chunks_after=0 in the config (a token must "
                f"not see later ones), got is_decoder={model.config.is_decoder} and {after}; pass use_cache=False"
            )
    layers: list[LocalCache | LSHCache] = []
    for block in model.encoder.layers:
        attention = block.attention.self_attention  # type: ignore[union-attr]
        layers.append(LSHCache(attention) if isinstance(attention, LSHSelfAttention) else LocalCache(attention))  # type: ignore[arg-type]
    return ReformerCache(layers, batch, call.num_hashes, legacy=call.legacy)


def _step(model: ReformerModel, cache: ReformerCache, grow: int = 0) -> Step:
    """Return the lengths of the rows with `grow` more tokens each, and what they are hashed with."""
    padded = [length + grow + model.padding(length + grow) for length in cache.lengths]
    known = {length: factors_of(model, length, cache.num_hashes) for length in set(padded)}
    factors = [known[length] for length in padded]
    for each in known.values():
        if each is not None:
            cache.num_buckets = math.prod(each)
    if cache.seed is None and model.draws_rotations and any(each is not None for each in factors):
        cache.seed = int(torch.randint(2**62, ()))
    call = ForwardCall(1, None, cache.num_hashes, None, cache.seed or 0)
    return Step(list(cache.lengths), padded, factors, call)


def _check(cache: ReformerCache, batch: int, columns: int, call: CachedCall) -> None:
    if len(cache.lengths) != batch:
        raise InputError(f"Reformer: past_buckets_states holds {len(cache.lengths)} rows, got {batch} new ones")
    if call.num_hashes != cache.num_hashes:
        raise InputError(
            f"Reformer: past_buckets_states was made with num_hashes={cache.num_hashes}, got {call.num_hashes}; give "
            "the same number in each call of a text"
        )
    if call.legacy and cache.states is None:
        raise InputError(
            "Reformer: past_buckets_states holds keys, not the hidden states that legacy_cache=True returns; pass it "
            "from the first call on"
        )
    mask = call.attention_mask
    if mask is not None and not bool((mask[:, -columns:] != 0).all()):
        raise InputError("Reformer: expected no masked tokens after those of past_buckets_states, got attention_mask 0")


def _by_token(probs_BHM: Tensor, tokens: Tensor, length: int) -> Tensor:
    """Return the probabilities by token, (B, H, 1, T)."""
    tokens_BHM = tokens.to(probs_BHM.device).expand(probs_BHM.shape)
    total = probs_BHM.new_zeros(*probs_BHM.shape[:2], length)
    # A place without a token has probability 0.
    return total.scatter_add(2, tokens_BHM.clamp(min=0), probs_BHM).unsqueeze(2)


def _together(outputs: list[Any], places: list[tuple[Any, Any]], shape: tuple[int, int]) -> Any:
    """Return one output of outputs of some rows each, at their places among the columns."""
    if places[0] == (slice(None), slice(None)):
        return outputs[0]

    def spread(parts: Sequence[Tensor], _dim: int = 1) -> Tensor:
        whole = parts[0].new_zeros(*shape, *parts[0].shape[2:])
        for part, at in zip(parts, places, strict=True):
            whole[at] = part
        return whole

    return type(outputs[0])(
        last_hidden_state=spread([output.last_hidden_state for output in outputs]),
        hidden_states=_layerwise(spread, [output.hidden_states for output in outputs]),
        attentions=outputs[0].attentions,
    )


def _layerwise(join: Any, parts: Sequence[tuple[Tensor, ...] | None]) -> tuple[Tensor, ...] | None:
    found = [part for part in parts if part is not None]
    return tuple(join(list(layer), 1) for layer in zip(*found, strict=True)) if found else None


def _grown(rows: list[Tensor], _dim: int) -> Tensor:
    """Return (B, H, L, T) of the probabilities (B, H, 1, t) of one token after the other."""
    length = rows[-1].shape[-1]
    return torch.cat([torch.nn.functional.pad(row, (0, length - row.shape[-1])) for row in rows], dim=2)
