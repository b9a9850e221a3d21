"""The heads of the Reformer: next tokens, masked tokens, labels of sequences, spans of answers.

Shapes: B batch, L tokens, E hidden size, V vocabulary, N labels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import ConfigError, InputError
from modelwright.core.logging import get_logger
from modelwright.models.reformer.backbone import ReformerModel, ReformerModelOutput, ReformerPreTrainedModel
from modelwright.models.reformer.cache import ReformerCache
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.nn.decode_layout import apply_linear
from modelwright.nn.losses import lean_causal_lm_loss
from modelwright.nn.resizing import resize_rows, zeros
from modelwright.nn.task_losses import token_classification_loss
from modelwright.outputs.model_outputs import (
    CausalLMOutput,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
)
from modelwright.pretrained.switches import wants_dict
from modelwright.pretrained.task_heads import pooled_output, span_output

__all__ = [
    "ReformerClassificationHead",
    "ReformerForMaskedLM",
    "ReformerForQuestionAnswering",
    "ReformerForSequenceClassification",
    "ReformerModel",
    "ReformerModelOutput",
    "ReformerModelWithLMHead",
    "ReformerModelWithLMHeadOutput",
    "ReformerOnlyLMHead",
    "ReformerPreTrainedModel",
]
logger = get_logger(__name__)
Device = torch.device | str | None


@dataclass
class ReformerModelWithLMHeadOutput(CausalLMOutput):
    """Scores of the next token (B, L, V) and the cache, to be passed to the next call."""

    past_buckets_states: Any = None

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        # The order of the tuple is upstream's.
        return "loss", "logits", "past_buckets_states", "hidden_states", "attentions"


class ReformerOnlyLMHead(nn.Module):
    """Maps both streams to vocabulary scores: (B, L, 2E) -> (B, L, V), in slices of `chunk_size_lm_head` tokens."""

    def __init__(self, config: ReformerConfig, **factory: Any) -> None:
        super().__init__()
        self.chunk_size = config.chunk_size_lm_head
        self.decoder = nn.Linear(2 * config.hidden_size, config.vocab_size, bias=False, **factory)
        # Beside the weight, as checkpoints name it.
        self.bias = nn.Parameter(torch.empty(config.vocab_size, **factory))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the scores."""
        if not self.chunk_size:
            return self._scores(hidden)
        # A decoded token, or the last ones of a text, may be fewer.
        return torch.cat([self._scores(part) for part in torch.split(hidden, self.chunk_size, dim=1)], dim=1)

    def _scores(self, hidden: Tensor) -> Tensor:
        scores = apply_linear(self.decoder, hidden)
        others = torch.is_grad_enabled() or torch.compiler.is_compiling() or self.decoder._forward_hooks
        if others or scores.dtype != self.bias.dtype:
            return scores + self.bias
        return scores.add_(self.bias)  # Nobody else has them, and they are large.


class _ReformerForTokens(ReformerPreTrainedModel):
    """A Reformer that scores the vocabulary at each token."""

    def __init__(self, config: ReformerConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self._check(config)
        if config.tie_word_embeddings:
            raise ConfigError(
                f"{type(self).__name__}: expected tie_word_embeddings=False, got {config.tie_word_embeddings!r}; the "
                f"head reads both streams, 2 * hidden_size = {2 * config.hidden_size} numbers a token, and an "
                f"embedding has {config.hidden_size}"
            )
        self.reformer = ReformerModel(config, device=device, dtype=dtype)
        self.lm_head = ReformerOnlyLMHead(config, device=device, dtype=dtype)
        self.post_init()

    def _check(self, config: ReformerConfig) -> None:
        """Raise ConfigError for a config that this head cannot work with."""
        raise NotImplementedError

    def get_output_embeddings(self) -> nn.Module:
        """Return the output projection."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output projection; the bias is cut, or continued with zeros, to the same number of tokens."""
        self.lm_head.decoder = new_embeddings  # type: ignore[assignment]
        resize_rows(self.lm_head.bias, len(self.lm_head.decoder.weight), zeros)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ReformerOnlyLMHead):
            nn.init.zeros_(module.bias)

    def _output_bias(self) -> nn.Parameter:
        return self.lm_head.bias


class ReformerModelWithLMHead(_ReformerForTokens):
    """The Reformer as a causal language model.

    Raises ConfigError unless `is_decoder` is True and no layer attends to chunks after its own.
    """

    _supports_generation_cache = True

    def _check(self, config: ReformerConfig) -> None:
        if not config.is_decoder:
            raise ConfigError(
                "ReformerModelWithLMHead: expected a config with is_decoder=True, got False; pass is_decoder=True "
                "to the config or to from_pretrained"
            )
        for kind in ("local", "lsh"):
            after = getattr(config, f"{kind}_num_chunks_after")
            if kind in config.attn_layers and after:
                raise ConfigError(
                    f"ReformerModelWithLMHead: expected {kind}_num_chunks_after=0 for causal language modelling, "
                    f"got {after}"
                )

    def forward(
        self,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        num_hashes: int | None = None,
        past_buckets_states: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
        legacy_cache: bool = False,
    ) -> ReformerModelWithLMHeadOutput | tuple[Any, ...]:
        """Return a `ReformerModelWithLMHeadOutput` (or a tuple): logits (B, L, V) and, with `labels` (B, L), the loss.

        The loss is the mean over labels that are not -100 of the cross-entropy, in nats, of token t+1 given tokens
        0..t: pass the input ids as labels.
        """
        output = self.reformer(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            num_hashes=num_hashes,
            past_buckets_states=past_buckets_states,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
            legacy_cache=legacy_cache,
        )
        logits = self.lm_head(output.last_hidden_state)
        result = ReformerModelWithLMHeadOutput(
            loss=None if labels is None else lean_causal_lm_loss(logits, labels),
            logits=logits,
            past_buckets_states=output.past_buckets_states,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()

    # Narrower than the base on purpose: generate() refuses what is not named here.
    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_buckets_states: Any = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        num_hashes: int | None = None,
        use_cache: bool | None = None,
    ) -> dict[str, Any]:
        """Return the keywords of one decoding step: the new tokens and the cache, or the whole prompt.

        Without a cache each row's masked tokens move behind its text: positions and local chunks count from the start
        of a row, so a row that is padded on the left would otherwise be another text than the same row alone.
        """
        shared = {"head_mask": head_mask, "num_hashes": num_hashes}
        if past_buckets_states is not None:
            past = past_buckets_states
            columns = past.columns if isinstance(past, ReformerCache) else past[0][1].shape[1]
            if columns >= input_ids.shape[1]:
                raise InputError(
                    f"generate: past_buckets_states holds {columns} tokens and the prompt has {input_ids.shape[1]}: "
                    "expected the whole text as the prompt, with at least one token that the cache lacks"
                )
            new = input_ids[:, columns:]
            return {**shared, "input_ids": new, "past_buckets_states": past, "use_cache": True}
        if use_cache and not self.training:
            return {**shared, "input_ids": input_ids, "attention_mask": attention_mask, "use_cache": True}
        inputs = {**shared, "input_ids": input_ids, "use_cache": False}
        if attention_mask is not None:
            order = attention_mask.bool().long().argsort(dim=-1, descending=True, stable=True)
            inputs["input_ids"] = input_ids.gather(1, order)
            inputs["attention_mask"] = attention_mask.gather(1, order)
        return inputs

    def _position_limit(self) -> int | None:
        return self.reformer.embeddings.position_embeddings.num_positions

    def _next_token_logits(self, outputs: Any, inputs: dict[str, Any]) -> Tensor:
        """Return the scores [batch, V] after the last token of each row's text."""
        logits: Tensor = outputs.logits
        mask = inputs.get("attention_mask")
        if mask is None:
            return logits[:, -1]
        places = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask.bool(), places, -1).amax(dim=-1)
        return logits[torch.arange(len(last), device=last.device), last]


class ReformerForMaskedLM(_ReformerForTokens):
    """The Reformer that fills in masked tokens; raises ConfigError unless `is_decoder` is False."""

    def _check(self, config: ReformerConfig) -> None:
        if config.is_decoder:
            raise ConfigError(
                "ReformerForMaskedLM: expected a config with is_decoder=False, got True, with which a token does not "
                "see those after it; pass is_decoder=False to the config or to from_pretrained"
            )

    def forward(
        self,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        num_hashes: int | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Return logits (B, L, V) and, with `labels` (B, L), the mean cross-entropy of those that are not -100."""
        output = self.reformer(
            input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            num_hashes=num_hashes,
            use_cache=False,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        logits = self.lm_head(output.last_hidden_state)
        result = MaskedLMOutput(
            loss=None if labels is None else token_classification_loss(logits, labels),
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()


class ReformerClassificationHead(nn.Module):
    """Scores the labels of a sequence by its first token: (B, L, 2E) -> (B, N)."""

    def __init__(self, config: ReformerConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        own = config.classifier_dropout
        self.dense = nn.Linear(2 * config.hidden_size, config.hidden_size, device=device, dtype=dtype)
        self.dropout = nn.Dropout(config.hidden_dropout_prob if own is None else own)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels, device=device, dtype=dtype)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the scores."""
        inner = self.dense(self.dropout(hidden_states[:, 0])).tanh()
        scores: Tensor = self.out_proj(self.dropout(inner))
        return scores


class ReformerForSequenceClassification(ReformerPreTrainedModel):
    """The Reformer that scores the labels of a sequence by its first token.

    With `is_decoder` that token sees itself alone, which is said once.
    """

    def __init__(self, config: ReformerConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        _warn_if_causal(self, "the first token, whose state is scored, sees no other")
        self.num_labels = config.num_labels
        self.reformer = ReformerModel(config, device=device, dtype=dtype)
        self.classifier = ReformerClassificationHead(config, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        num_hashes: int | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Return logits (B, N) and with `labels` the loss, by `config.problem_type` or what the labels are."""
        output = self.reformer(
            input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            num_hashes=num_hashes,
            use_cache=False,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        logits = self.classifier(output.last_hidden_state)
        result = pooled_output(output, logits, labels, self.config.problem_type)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class ReformerForQuestionAnswering(ReformerPreTrainedModel):
    """The Reformer that scores each token as the first and as the last of an answer.

    With `is_decoder` a token sees only those before it, which is said once.
    """

    def __init__(self, config: ReformerConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        _warn_if_causal(self, "a token does not see what follows it")
        self.num_labels = config.num_labels
        self.reformer = ReformerModel(config, device=device, dtype=dtype)
        self.qa_outputs = nn.Linear(2 * config.hidden_size, 2, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        num_hashes: int | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> QuestionAnsweringModelOutput | tuple[Any, ...]:
        """Return `start_logits` and `end_logits` (B, L), and with both positions (B) the loss.

        Positions behind the last token do not count.
        """
        output = self.reformer(
            input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            num_hashes=num_hashes,
            use_cache=False,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        result = span_output(output, self.qa_outputs(output.last_hidden_state), start_positions, end_positions)
        return result if wants_dict(self, return_dict) else result.to_tuple()


def _warn_if_causal(model: ReformerPreTrainedModel, why: str) -> None:
    if model.config.is_decoder:
        logger.warning_once(
            f"{type(model).__name__}: config.is_decoder is True, so {why}; pass is_decoder=False to see both sides."
        )
