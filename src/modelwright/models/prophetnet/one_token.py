"""A step of decoding by the decoder's weights alone, where that is the same as calling its modules.

A step is one token of each row, in few streams: its operations are small, and calling the modules, and asking each
product who looks at it, takes as long as they do. Where nobody watches the modules (`modelwright.nn.unwatched`), what a
step needs of them is looked up once for a text. The predict stream's own key and value lie behind those of the main
stream for the length of a step, so that there is one product with all keys.

Legend: B rows, C rows of the source (B is a multiple of C), G streams that ask, K = G or G + 1 streams with keys, H
heads, D head size, N buckets, S tokens of the source, U main keys and the own one, R = B or C times H, E hidden size.
"""

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from modelwright.attention.cache_layers import DynamicLayer
from modelwright.attention.caches import EncoderDecoderCache
from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, implementation_of
from modelwright.attention.sdpa import sdpa_attention_forward
from modelwright.models.prophetnet.layers import (
    ProphetNetAttention,
    ProphetNetDecoderLayer,
    ProphetNetFeedForward,
)
from modelwright.models.prophetnet.ngram_attention import ProphetNetNgramSelfAttention
from modelwright.models.prophetnet.streams import Streams
from modelwright.nn.activations import Activation, activate_over
from modelwright.nn.decode_layout import RowLinear, ready_product
from modelwright.nn.norm import ready_norm
from modelwright.nn.packed_linear import PackedLinear
from modelwright.nn.tracing import is_recorded
from modelwright.nn.unwatched import Unwatched, as_written, is_plain

# Classes of modules whose calls are no more than what is done here.
_FORWARDS = as_written(
    Activation,
    PackedLinear,
    ProphetNetAttention,
    ProphetNetDecoderLayer,
    ProphetNetFeedForward,
    ProphetNetNgramSelfAttention,
    RowLinear,
    nn.Dropout,
    nn.LayerNorm,
    nn.Linear,
)
Cached = tuple[Tensor, Tensor]


class PlainLayer:
    """The weights of a layer with attention to an encoder, in fp32 on the CPU, without dropout."""

    def __init__(self, layer: ProphetNetDecoderLayer) -> None:
        own, cross, feed = layer.self_attn, layer.cross_attn, layer.feed_forward
        self.heads, self.size, self.buckets = own.num_attn_heads, own.head_dim, own.num_buckets
        self.cross_heads = cross.num_attn_heads
        projections = [getattr(own, name) for name in own._siblings]
        self._project, self._widths = ready_product(*projections), [len(each.weight) for each in projections]
        self._own_output, self._own_norm = ready_product(own.out_proj), ready_norm(layer.self_attn_layer_norm)
        self._cross_query, self._cross_output = ready_product(cross.query_proj), ready_product(cross.out_proj)
        self._cross_norm, self._feed_norm = (
            ready_norm(layer.cross_attn_layer_norm),
            ready_norm(layer.feed_forward_layer_norm),
        )
        self._intermediate, self._output = ready_product(feed.intermediate), ready_product(feed.output)
        self._activation = feed.activation_fn

    def step(
        self,
        hidden_BKE: Tensor,
        kept: DynamicLayer,
        source: Cached,
        places_KU: Tensor,
        bias_R1S: Tensor | None,
        asking: int,
        begins_alike: bool,
    ) -> Tensor:
        """Return the states (B, G, E) of the last G = `asking` streams; the main one's key goes into `kept`.

        `source` are the keys and values (C, H, S, D) of the encoder's states, `bias_R1S` is added to their scores.
        `begins_alike`: the predict stream is the same in all rows, as before the first layer, where it is a position.
        """
        hidden = hidden_BKE[:, -asking:]
        projected = self._project_alike(hidden_BKE) if begins_alike else self._project(hidden_BKE)
        hidden = self._own_norm(self._own_output(self._attend(projected, kept, places_KU, asking)).add_(hidden))
        hidden = self._cross_norm(self._cross_output(self._attend_to_source(hidden, source, bias_R1S)).add_(hidden))
        inner = activate_over(self._activation, self._intermediate(hidden))
        return self._feed_norm(self._output(inner).add_(hidden))

    def _project_alike(self, hidden_B2E: Tensor) -> Tensor:
        """Return the same as `_project` where the second stream's states are the same in all rows."""
        main_BE, predict_1E = hidden_B2E[:, 0], hidden_B2E[:1, 1]
        projected = self._project(torch.cat([main_BE, predict_1E]))
        return torch.stack([projected[:-1], projected[-1:].expand(len(main_BE), -1)], dim=1)

    def _attend(self, projected_BKX: Tensor, kept: DynamicLayer, places_KU: Tensor, asking: int) -> Tensor:
        """Return what the streams that ask attend to, (B, G, H * D)."""
        (B, K, _), (H, D, G) = projected_BKX.shape, (self.heads, self.size, asking)
        q, r, k, v = projected_BKX.split_with_sizes(self._widths, dim=-1)
        k_BHKD, v_BHKD = (x.view(B, K, H, D).transpose(1, 2) for x in (k, v))
        k_BHUD, v_BHUD = kept.update_and_lend(k_BHKD, v_BHKD, K - 1)
        q_RGD = q[:, K - G :].reshape(B, G, H, D).transpose(1, 2).reshape(B * H, G, D)
        r_BHGN = r[:, K - G :].view(B, G, self.buckets, H).permute(0, 3, 1, 2)
        scores = r_BHGN.gather(-1, places_KU[K - G :].expand(B, H, G, -1))
        if G == K:
            scores[:, :, 0, -1] = float("-inf")
        scores = torch.baddbmm(scores.flatten(0, 1), q_RGD, k_BHUD.flatten(0, 1).transpose(1, 2), alpha=D**-0.5)
        attended_RGD = torch.bmm(scores.softmax(dim=-1), v_BHUD.flatten(0, 1))
        return attended_RGD.view(B, H, G, D).transpose(1, 2).reshape(B, G, H * D)

    def _attend_to_source(self, hidden_BGE: Tensor, source: Cached, bias_R1S: Tensor | None) -> Tensor:
        """Return what all streams attend to of the source, (B, G, H * D); rows that share a source ask together."""
        (B, G, _), (H, D, C) = hidden_BGE.shape, (self.cross_heads, self.size, len(source[0]))
        k_RSD, v_RSD = (x.flatten(0, 1) for x in source)
        q_RQD = self._cross_query(hidden_BGE).view(C, -1, H, D).transpose(1, 2).reshape(C * H, -1, D)
        beta, bias = (0, q_RQD.new_empty(1, 1, 1)) if bias_R1S is None else (1, bias_R1S)
        scores = torch.baddbmm(bias, q_RQD, k_RSD.transpose(1, 2), beta=beta, alpha=D**-0.5)
        attended_RQD = torch.bmm(scores.softmax(dim=-1), v_RSD)
        return attended_RQD.view(C, H, -1, D).transpose(1, 2).reshape(B, G, H * D)


class PlainDecoder:
    """A decoder's layers, found once for a text; `layers` is None where there is more to them than their weights."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        self._unwatched = Unwatched(blocks, _FORWARDS)
        self.layers: list[PlainLayer] | None = None
        if self._unwatched.in_evaluation and self._unwatched.hold(blocks) and _are_whole(blocks):
            self.layers = [PlainLayer(block) for block in blocks]  # type: ignore[arg-type]
        self._source: tuple[Any, Any, tuple[bool, Tensor | None]] | None = None

    def hold(self, blocks: nn.ModuleList) -> bool:
        """Tell whether this is still true of `blocks`, and nobody follows the call."""
        return self._unwatched.hold(blocks)

    def source_bias(self, given: Tensor | None, mask: Callable[[], Any], rows: int) -> tuple[bool, Tensor | None]:
        """Return `_source_bias` of `mask()`, which is made of `given`, once for a text."""
        assert self.layers is not None
        # Compared by its numbers: not all ways to change them are noticed by torch.
        if self._source is None or self._source[0] is not given or not _are_same(given, self._source[1]):
            bias = _source_bias(mask(), rows, self.layers[0].cross_heads)
            self._source = given, None if given is None else given.clone(), bias
        return self._source[2]


# Kept with the cache of a text, so that no weight is for longer than that.
_PLAIN: "WeakKeyDictionary[EncoderDecoderCache, PlainDecoder]" = WeakKeyDictionary()


def plain_step(
    blocks: nn.ModuleList,
    config: Any,
    hidden: Tensor,
    streams: Streams,
    cache: Any,
    states: Tensor,
    given: Any,
    mask: Callable[[], Any],
) -> Callable[[bool], Tensor] | None:
    """Return a function that runs this step, or None where modules are to be called.

    The function takes whether the main stream's last state is wanted, and returns the last states (B, G, E). hidden:
    (B, 2, E), one token of the main and of one predict stream; cache: with keys of that text and of the source; states:
    those of the encoder, (C, S, E); given: the source's mask in the call, of which `mask()` makes that of the kernel.

    Modules are called for another kind of cache or of attention, in the first call of a text, for more tokens or
    streams, with masked tokens, for a source of another size than that of the cache, and where somebody watches.
    """
    is_step = streams.tokens == streams.predict == 1 and streams.past > 0 and streams.mask is None
    if not (is_step and type(cache) is EncoderDecoderCache and is_plain(hidden)) or is_recorded():
        return None
    own: list[Any] = cache.self_attention_cache.layers
    cross: list[Any] = cache.cross_attention_cache.layers
    for held in (own, cross):
        if len(held) != len(blocks) or not all(type(each) is DynamicLayer and is_plain(each.keys) for each in held):
            return None
    if ALL_ATTENTION_FUNCTIONS[implementation_of(config)] is not sdpa_attention_forward:
        return None
    plain = _PLAIN.get(cache)
    if plain is None or (plain.layers is not None and not plain.hold(blocks)):
        plain = _PLAIN[cache] = PlainDecoder(blocks)
        if plain.layers is not None and len(hidden) > len(cross[0].keys):
            _lay_out_for_beams(cross)
    (C, _, S, _), B = cross[0].keys.shape, len(hidden)
    if plain.layers is None or states.shape[:2] != (C, S) or B % C:
        return None
    is_taken, bias = plain.source_bias(given, mask, C)
    if not is_taken:
        return None
    layers = plain.layers

    def run(with_main_states: bool) -> Tensor:
        places_KU = streams.places(streams.past + 1).before_own
        states = hidden
        # Unless somebody changes it on its way here, as dropout does.
        begins_alike = B > 1 and torch.equal(hidden[:, 1], hidden[:1, 1].expand(B, -1))
        for number, (layer, kept, source) in enumerate(zip(layers, own, cross, strict=True), start=1):
            asking = 2 if with_main_states or number < len(layers) else 1
            held = kept, (source.keys, source.values)
            states = layer.step(states, *held, places_KU, bias, asking, begins_alike and number == 1)
        return states

    return run


def _lay_out_for_beams(cross: Iterable[DynamicLayer]) -> None:
    """Let the source's keys lie by sizes and then tokens: so their product with four or more queries takes two thirds.

    With fewer queries, as without beams, it would take longer.
    """
    for each in cross:
        assert each.keys is not None
        each.keys = each.keys.mT.contiguous().mT


def _source_bias(mask: Any, rows: int, heads: int) -> tuple[bool, Tensor | None]:
    """Return whether a mask of the source is one that steps take, and what it adds to their scores, (R, 1, S) or None.

    They take one of booleans, (C or 1, 1, 1, S), by which each row sees something.
    """
    if mask is None:
        return True, None
    if mask.dtype != torch.bool or mask.dim() != 4 or mask.shape[1:3] != (1, 1) or not bool(mask.any(dim=-1).all()):
        return False, None
    bias_C11S = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))
    return True, bias_C11S.expand(rows, heads, -1, -1).reshape(-1, 1, mask.shape[-1])


def _are_same(given: Tensor | None, kept: Tensor | None) -> bool:
    return given is None or (kept is not None and given.shape == kept.shape and torch.equal(given, kept))


def _are_whole(layers: Iterable[Any]) -> bool:
    """Tell whether layers attend to an encoder, with as many heads each, by bucket numbers of these heads only.

    And whether each looks for its keys at its own place, which those of a list that somebody has put together may not.
    """
    places, heads = [], set()
    for layer in layers:
        own, cross = layer.self_attn, getattr(layer, "cross_attn", None)
        if cross is None or len(own.relative_pos_embeddings.weight) != own.num_buckets * own.num_attn_heads:
            return False
        places += [own.layer_idx, cross.layer_idx]
        heads.add(cross.num_attn_heads)
    return len(heads) == 1 and places == [number for number in range(len(places) // 2) for _ in range(2)]
