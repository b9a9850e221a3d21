"""The Reformer without a head: the parts of this folder, assembled.

Shapes: B batch, L tokens, E hidden size, H heads.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.models.reformer import flop_formulas  # noqa: F401 - registers them
from modelwright.models.reformer.axial import AxialPositionEmbeddings, ReformerEmbeddings
from modelwright.models.reformer.call import ForwardCall
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.decoding import CachedCall, go_on, read_prompt
from modelwright.models.reformer.encoder import ReformerEncoder
from modelwright.models.reformer.hashing import choose_num_buckets
from modelwright.models.reformer.layer import ReformerLayer, token_slices
from modelwright.models.reformer.lsh_attention import needs_hashing
from modelwright.models.reformer.reversible import side_by_side
from modelwright.nn.decode_layout import is_hooked
from modelwright.nn.precision import at_least_float32
from modelwright.nn.tracing import is_recorded
from modelwright.outputs.base import ModelOutput
from modelwright.pretrained.modeling import PreTrainedModel
from modelwright.pretrained.switches import check_one_input, wants_dict

logger = get_logger(__name__)


@dataclass
class ReformerModelOutput(ModelOutput):
    """What `ReformerModel` returns.

    `last_hidden_state` (B, L, 2E): both residual streams, normed. `hidden_states`: the second stream, (B, L, E),
    before the first layer and after each. `attentions`: per layer the probabilities in chunks (B, H, C, Q, W), or
    (B, H, L, L) where the sequence is no longer than a chunk.
    """

    last_hidden_state: Tensor | None = None
    past_buckets_states: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class ReformerPreTrainedModel(PreTrainedModel):
    """What all Reformer models share: the config class, the initialisation and the dummy inputs."""

    config_class = ReformerConfig
    base_model_prefix = "reformer"
    _placement_refusal = "its reversible stack works with the weights of the layers and does not call them"
    _gradient_checkpointing_exemption = "the reversible stack already stores no activations"
    _onnx_refusal = (
        "its attention is operators of torch that ONNX does not have; torch.export.export takes it, with hash_seed set"
    )
    # Constants that checkpoints of 2020 stored as buffers; the bias that 4.x stores under two names.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"(self_)?mask_value_float(16|32)$",
        r"lm_head\.decoder\.bias$",
    ]

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch of two short rows that every Reformer accepts."""
        ids = torch.tensor([[1, 2, 0], [2, 1, 1]])
        return {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}

    def get_position_embeddings(self) -> nn.Module:
        """Return the module that embeds positions."""
        return self._embeddings().position_embeddings

    def resize_position_embeddings(self, new_axial_shape: int | Sequence[int]) -> None:
        """Stretch (or shrink) the positions by linear interpolation, so that longer texts fit.

        `new_axial_shape` has a size for each axis of `axial_pos_shape`, whose product is the new number of positions:
        [128, 64] after [64, 64] stretches the first axis only, so that each token keeps its row of the second. With
        `axial_pos_embds=False` it is the number of positions. The first and the last row of each table keep their
        vectors. Config and tables change in place; an optimizer that was made before must be made again.
        `num_buckets` stays: for much longer texts set `config.num_buckets = None`, and training chooses it again.
        Raises InputError for sizes that do not fit.
        """
        positions = self._embeddings().position_embeddings
        positions.resize(new_axial_shape)
        for module in self.modules():
            if isinstance(module, ReformerPreTrainedModel):
                module.config.max_position_embeddings = positions.num_positions
                if isinstance(positions, AxialPositionEmbeddings):
                    module.config.axial_pos_shape = positions.shape

    def _embeddings(self) -> ReformerEmbeddings:
        embeddings = self.base_model.embeddings
        assert isinstance(embeddings, ReformerEmbeddings)
        return embeddings

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, AxialPositionEmbeddings):
            for weight in module.weights:
                nn.init.normal_(weight, std=self.config.axial_norm_std)
        elif isinstance(module, nn.Embedding | nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class ReformerModel(ReformerPreTrainedModel):
    """The Reformer without a head: ids or embeddings to (B, L, 2E).

    Sequences longer than a chunk are padded to a multiple of the least common multiple of the chunk lengths in use,
    masked and trimmed, in training too. Raises InputError for inputs that do not fit.
    Source: Kitaev et al. 2020.
    """

    def __init__(
        self, config: ReformerConfig, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.embeddings = ReformerEmbeddings(config, **factory)
        self.encoder = ReformerEncoder(config, **factory)
        self.num_heads = config.num_attention_heads
        self.num_hashes = config.num_hashes
        self.chunk_lengths = config.chunk_lengths()
        self.chunk_multiple = config.least_common_chunk_length()
        self.lsh_chunk_length = config.lsh_attn_chunk_length if "lsh" in config.attn_layers else None
        self.lsh_window = config.lsh_attn_chunk_length * (
            config.lsh_num_chunks_before + 1 + config.lsh_num_chunks_after
        )
        self.attention_mode = config.attention_mode
        self.draws_rotations = config.hash_seed is None
        self.causal = config.is_decoder
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        self.embeddings.word_embeddings = value

    @property
    def _states_width(self) -> int:
        return 2 * int(self.config.hidden_size)

    def _prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            block: ReformerLayer = self.encoder.layers[layer]  # type: ignore[assignment]
            block.attention.prune_heads(heads)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        num_hashes: int | None = None,
        past_buckets_states: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        legacy_cache: bool = False,
    ) -> ReformerModelOutput | tuple[Any, ...]:
        """Return a `ReformerModelOutput`, or a tuple if `return_dict` is False.

        `attention_mask` (B, L) is 0 at tokens that nobody may attend to; `head_mask` (H,) or (layers, H) scales heads;
        `num_hashes` overrides the configured number of hash rounds.

        With `use_cache=True` the output has `past_buckets_states`, to be passed to the next call with the new tokens
        alone, and each row's masked tokens are no tokens at all (see `modelwright.models.reformer.decoding`). None
        means what `config.use_cache` says, for a decoder in evaluation, without gradients and without masked tokens.
        Without a cache masked tokens keep their places, as in transformers: positions count them, and they move the
        borders of chunks. And with more than one LSH layer a text at once is not what it is token by token: each token
        shares a chunk with others that came later, which a cache leaves as they were.
        `legacy_cache=True` returns it as pairs of buckets and hidden states for each layer, slow to go on from.
        """
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        given = check_one_input(self, input_ids, inputs_embeds)
        if input_ids is not None and past_buckets_states is None:
            self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        num_hashes = self.num_hashes if num_hashes is None else num_hashes
        if not isinstance(num_hashes, int) or num_hashes < 1:
            raise InputError(f"num_hashes: expected a positive whole number of hash rounds, got {num_hashes!r}")
        batch, length = given.shape[:2]
        shared: dict[str, Any] = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "num_hashes": num_hashes,
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        key_mask = None
        if past_buckets_states is None:
            self.embeddings.check_length(length)
            key_mask = _key_mask(attention_mask, batch, length)
        if past_buckets_states is not None or self._keeps(use_cache, key_mask):
            call = CachedCall(attention_mask=attention_mask, legacy=legacy_cache, **shared)
            past = past_buckets_states
            output = read_prompt(self, call) if past is None else go_on(self, past, call)
        else:
            output = self.encode(key_mask=key_mask, **shared)
        return output if wants_dict(self, return_dict) else output.to_tuple()

    def _keeps(self, use_cache: bool | None, key_mask: Tensor | None) -> bool:
        """Tell whether a call makes a cache."""
        if self.training:
            if use_cache:
                logger.warning_once("Reformer: there is no cache in training; setting use_cache=False.")
            return False
        if use_cache is not None:
            return use_cache
        if getattr(self, "_is_replica", False):  # DataParallel gathers tensors, and a cache is none.
            return False
        free = key_mask is None and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return bool(self.config.use_cache and self.causal and free)

    def encode(
        self,
        *,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        position_ids: Tensor | None,
        head_mask: Tensor | None,
        num_hashes: int,
        output_attentions: bool,
        output_hidden_states: bool,
        key_mask: Tensor | None = None,
        seed: int | None = None,
        keep: Any = None,
        keeps_states: bool = False,
    ) -> ReformerModelOutput:
        """Run the layers on whole texts; see `forward` and, for `seed`, `keep` and `keeps_states`, `ForwardCall`."""
        given = input_ids if input_ids is not None else inputs_embeds
        assert given is not None
        length = given.shape[1]
        padding = self.padding(length)
        if padding:
            input_ids, inputs_embeds, position_ids, key_mask = self._pad(
                padding, input_ids, inputs_embeds, position_ids, key_mask
            )
        padded = length + padding
        hashing = self.lsh_chunk_length is not None and needs_hashing(
            padded,
            num_hashes,
            mode=self.attention_mode,
            chunk_length=self.lsh_chunk_length,
            window=self.lsh_window,
        )
        if seed is None:
            draws = any(layer.training for layer in self.encoder.layers) or (hashing and self.draws_rotations)
            if draws and torch.compiler.is_exporting():
                raise InputError(
                    "Reformer: expected nothing random in a model to export, got training mode or hash_seed=None, with "
                    "which each call draws rotations; call model.eval(), and load it with hash_seed=0 "
                    "(from_pretrained(folder, hash_seed=0))"
                )
            seed = int(torch.randint(2**62, ())) if draws else 0
        call = ForwardCall(
            length=length,
            key_mask=key_mask,
            num_hashes=num_hashes,
            num_buckets=self._num_buckets(padded) if hashing else None,
            seed=seed,
            return_attentions=output_attentions,
            keep=keep,
            keeps_states=keep is not None and (keeps_states or torch.is_grad_enabled()),
        )
        streams = self._streams(input_ids, position_ids, inputs_embeds)
        last, hidden_states, attentions = self.encoder(
            streams,
            call,
            layerwise_head_mask(head_mask, len(self.encoder.layers), self.num_heads),
            output_hidden_states=output_hidden_states,
        )
        return ReformerModelOutput(
            last_hidden_state=last[:, :length],
            hidden_states=None if hidden_states is None else tuple(state[:, :length] for state in hidden_states),
            attentions=attentions,
        )

    def _streams(self, input_ids: Tensor | None, position_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Return both residual streams (B, L, 2, E), which start as the embeddings, in memory of their own."""
        given = input_ids if input_ids is not None else inputs_embeds
        assert given is not None
        parts = [part for _, part in token_slices(given)]
        watched = torch.is_grad_enabled() or is_recorded() or any(map(is_hooked, self.embeddings.modules()))
        drops = any(module.training for module in self.embeddings.modules())
        # Of other lengths, parts might fit that the whole does not.
        fits = position_ids is None or position_ids.shape[-1:] == given.shape[1:2]
        if len(parts) < 2 or watched or drops or not fits:
            embedded = self.embeddings(input_ids, position_ids, inputs_embeds)
            return side_by_side(at_least_float32(embedded).unsqueeze(2).expand(-1, -1, 2, -1))
        if position_ids is None:
            position_ids = torch.arange(given.shape[1], device=given.device).unsqueeze(0)
        streams: Tensor | None = None
        for part in parts:
            ids, embeds = (None if each is None else each[:, part] for each in (input_ids, inputs_embeds))
            embedded = self.embeddings(ids, position_ids[..., part], embeds)
            if streams is None:
                streams = at_least_float32(embedded[:0]).new_empty(*given.shape[:2], 2, embedded.shape[-1])
            streams[:, part] = embedded.unsqueeze(2)
        assert streams is not None
        return streams

    def padding(self, length: int) -> int:
        """Return how many tokens to add so that the sequence is cut into whole chunks."""
        missing = -length % self.chunk_multiple
        if not missing or length <= min(self.chunk_lengths):
            return 0
        return missing

    def _pad(
        self,
        padding: int,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        position_ids: Tensor | None,
        key_mask: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]:
        """Append `padding` masked tokens."""
        given = input_ids if input_ids is not None else inputs_embeds
        assert given is not None
        if key_mask is None:
            key_mask = torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
        pad_id = self.config.pad_token_id or 0
        if inputs_embeds is not None:
            pads = torch.full((given.shape[0], padding), pad_id, device=given.device)
            inputs_embeds = torch.cat([inputs_embeds, self.embeddings.word_embeddings(pads)], dim=1)
        if input_ids is not None:
            input_ids = F.pad(input_ids, (0, padding), value=pad_id)
        if position_ids is None:
            position_ids = torch.arange(given.shape[1], device=given.device).unsqueeze(0)
        # Masked tokens need a position that exists, and it does not matter which.
        position_ids = F.pad(position_ids, (0, padding), value=0)
        return input_ids, inputs_embeds, position_ids, F.pad(key_mask, (0, padding), value=False)

    def _num_buckets(self, length: int) -> int | list[int]:
        """Return the configured number of buckets, or the right one for `length` tokens if there is none.

        The one place where a forward writes to the config: in training the choice is kept, so that it is saved with
        the model and used again. Evaluation chooses afresh each time and writes nothing, so that a short first input
        does not decide for later ones.
        """
        assert self.lsh_chunk_length is not None
        configured: int | list[int] | None = self.config.num_buckets
        if configured is not None:
            return configured
        chosen = choose_num_buckets(length, self.lsh_chunk_length, self.config.max_position_embeddings)
        if self.training:
            self.config.num_buckets = chosen
        return chosen


def _key_mask(attention_mask: Tensor | None, batch: int, length: int) -> Tensor | None:
    """Return the mask as booleans, or None if it rules nothing out; raises InputError for another shape."""
    if attention_mask is None:
        return None
    if attention_mask.shape != (batch, length):
        raise InputError(
            f"Reformer: expected an attention_mask of shape ({batch}, {length}), got {tuple(attention_mask.shape)}"
        )
    mask = attention_mask != 0  # A copy: the caller may reuse the tensor before the backward.
    if torch.compiler.is_compiling():
        return mask  # Whether it rules anything out is not known while a graph is traced.
    return None if bool(mask.all()) else mask


def layerwise_head_mask(head_mask: Tensor | None, num_layers: int, num_heads: int) -> Tensor | None:
    """Return the head mask as (layers, H); raises InputError for another shape than that or (H,)."""
    if head_mask is None:
        return None
    head_mask = head_mask.clone()  # The caller may reuse the tensor before the backward.
    if head_mask.shape == (num_heads,):
        return head_mask.expand(num_layers, num_heads)
    if head_mask.shape == (num_layers, num_heads):
        return head_mask
    raise InputError(
        f"Reformer: expected a head_mask of shape ({num_heads},) or ({num_layers}, {num_heads}), "
        f"got {tuple(head_mask.shape)}"
    )
