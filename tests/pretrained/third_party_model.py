"""A whole model as people wrote them for transformers 4.x, with nothing but its imports changed.

An encoder of text that can also read a picture's patches (mode "fusion", by cross attention to wider states) and write
(mode "decode", causal, with tuples as its cache). Its habits are those of such files: a config is all that constructors
take, masks and caches are made by hand, gradient checkpointing is a flag in a loop, heads are pruned by index.
"""

# ruff: noqa: B023, RUF005 (as such files are written)

import math

import torch
import torch.utils.checkpoint
from torch import nn

from modelwright.activations import ACT2FN
from modelwright.configuration_utils import PretrainedConfig
from modelwright.modeling_outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)
from modelwright.modeling_utils import (
    PreTrainedModel,
    apply_chunking_to_forward,
    find_pruneable_heads_and_indices,
    prune_linear_layer,
)
from modelwright.utils import logging

logger = logging.get_logger(__name__)


class CaptionConfig(PretrainedConfig):
    model_type = "caption-bert"

    def __init__(
        self,
        vocab_size=23,
        hidden_size=16,
        encoder_width=24,
        num_hidden_layers=3,
        fusion_layer=1,
        num_attention_heads=4,
        intermediate_size=20,
        hidden_act="gelu",
        dropout=0.0,
        max_position_embeddings=32,
        initializer_range=0.3,
        layer_norm_eps=1e-12,
        pad_token_id=0,
        use_cache=True,
        **kwargs,
    ):
        super().__init__(pad_token_id=pad_token_id, **kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.encoder_width = encoder_width
        self.num_hidden_layers = num_hidden_layers
        self.fusion_layer = fusion_layer
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.dropout = dropout
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.use_cache = use_cache


class CaptionEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("position_ids", torch.arange(config.max_position_embeddings).expand((1, -1)))

    def forward(self, input_ids=None, inputs_embeds=None, past_length=0):
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        length = inputs_embeds.size(1)
        positions = self.position_ids[:, past_length : past_length + length]
        return self.dropout(self.LayerNorm(inputs_embeds + self.position_embeddings(positions)))


class CaptionSelfAttention(nn.Module):
    def __init__(self, config, is_cross_attention):
        super().__init__()
        if config.hidden_size % config.num_attention_heads != 0:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        width = config.encoder_width if is_cross_attention else config.hidden_size
        self.query = nn.Linear(config.hidden_size, self.all_head_size)
        self.key = nn.Linear(width, self.all_head_size)
        self.value = nn.Linear(width, self.all_head_size)
        self.dropout = nn.Dropout(config.dropout)

    def split_heads(self, x):
        batch, length, _ = x.shape
        return x.view(batch, length, self.num_attention_heads, self.attention_head_size).permute(0, 2, 1, 3)

    def forward(
        self, hidden, mask=None, head_mask=None, encoder_hidden=None, encoder_mask=None, past=None, attentions=False
    ):
        query = self.split_heads(self.query(hidden))
        if encoder_hidden is not None and past is not None:
            key, value = past
            mask = encoder_mask
        elif encoder_hidden is not None:
            key, value = self.split_heads(self.key(encoder_hidden)), self.split_heads(self.value(encoder_hidden))
            mask = encoder_mask
        else:
            key, value = self.split_heads(self.key(hidden)), self.split_heads(self.value(hidden))
            if past is not None:
                key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.attention_head_size)
        if mask is not None:
            scores = scores + mask
        probabilities = nn.Softmax(dim=-1)(scores)
        kept = self.dropout(probabilities)
        if head_mask is not None:
            kept = kept * head_mask
        context = torch.matmul(kept, value).permute(0, 2, 1, 3).contiguous()
        context = context.view(*context.shape[:2], self.all_head_size)
        outputs = (context, probabilities) if attentions else (context,)
        return (*outputs, (key, value))


class CaptionOutput(nn.Module):
    def __init__(self, config, width):
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden, residual):
        return self.LayerNorm(self.dropout(self.dense(hidden)) + residual)


class CaptionAttention(nn.Module):
    def __init__(self, config, is_cross_attention=False):
        super().__init__()
        self.self = CaptionSelfAttention(config, is_cross_attention)
        self.output = CaptionOutput(config, config.hidden_size)
        self.pruned_heads = set()

    def prune_heads(self, heads):
        if len(heads) == 0:
            return
        heads, index = find_pruneable_heads_and_indices(
            heads, self.self.num_attention_heads, self.self.attention_head_size, self.pruned_heads
        )
        self.self.query = prune_linear_layer(self.self.query, index)
        self.self.key = prune_linear_layer(self.self.key, index)
        self.self.value = prune_linear_layer(self.self.value, index)
        self.output.dense = prune_linear_layer(self.output.dense, index, dim=1)
        self.self.num_attention_heads = self.self.num_attention_heads - len(heads)
        self.self.all_head_size = self.self.attention_head_size * self.self.num_attention_heads
        self.pruned_heads = self.pruned_heads.union(heads)

    def forward(self, hidden, *args, **kwargs):
        outputs = self.self(hidden, *args, **kwargs)
        return (self.output(outputs[0], hidden), *outputs[1:])


class CaptionLayer(nn.Module):
    def __init__(self, config, layer_num):
        super().__init__()
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        self.seq_len_dim = 1
        self.attention = CaptionAttention(config)
        self.has_cross_attention = layer_num >= config.fusion_layer
        if self.has_cross_attention:
            self.crossattention = CaptionAttention(config, is_cross_attention=True)
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act] if isinstance(config.hidden_act, str) else config.hidden_act
        self.output = CaptionOutput(config, config.intermediate_size)

    def forward(
        self,
        hidden,
        mask=None,
        head_mask=None,
        encoder_hidden=None,
        encoder_mask=None,
        past_key_value=None,
        output_attentions=False,
        mode=None,
    ):
        own = past_key_value[:2] if past_key_value is not None else None
        outputs = self.attention(hidden, mask, head_mask, past=own, attentions=output_attentions)
        hidden, weights, present = outputs[0], outputs[1:-1], outputs[-1]
        if mode == "fusion" and self.has_cross_attention:
            if encoder_hidden is None:
                raise ValueError("encoder_hidden_states must be given for cross-attention layers")
            cross = past_key_value[2:] if past_key_value is not None else None
            outputs = self.crossattention(
                hidden, None, head_mask, encoder_hidden, encoder_mask, past=cross, attentions=output_attentions
            )
            hidden, weights, present = outputs[0], weights + outputs[1:-1], present + outputs[-1]
        hidden = apply_chunking_to_forward(self.feed_forward, self.chunk_size_feed_forward, self.seq_len_dim, hidden)
        return (hidden, *weights, present)

    def feed_forward(self, hidden):
        return self.output(self.activation(self.dense(hidden)), hidden)


class CaptionEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList([CaptionLayer(config, i) for i in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden,
        mask,
        head_mask,
        encoder_hidden=None,
        encoder_mask=None,
        past_key_values=None,
        use_cache=None,
        output_attentions=False,
        output_hidden_states=False,
        return_dict=True,
        mode="fusion",
    ):
        all_hidden = () if output_hidden_states else None
        all_weights = () if output_attentions else None
        all_cross = () if output_attentions else None
        cache = () if use_cache else None
        for i, layer in enumerate(self.layer):
            if output_hidden_states:
                all_hidden = all_hidden + (hidden,)
            past = past_key_values[i] if past_key_values is not None else None
            if self.gradient_checkpointing and self.training:
                if use_cache:
                    logger.warning("`use_cache=True` is incompatible with gradient checkpointing.")
                    use_cache, cache = False, None

                def create_custom_forward(module):
                    def custom_forward(*inputs):
                        return module(*inputs, past_key_value=past, output_attentions=output_attentions, mode=mode)

                    return custom_forward

                outputs = torch.utils.checkpoint.checkpoint(
                    create_custom_forward(layer), hidden, mask, head_mask[i], encoder_hidden, encoder_mask,
                    use_reentrant=False,
                )  # fmt: skip
            else:
                outputs = layer(
                    hidden, mask, head_mask[i], encoder_hidden, encoder_mask, past, output_attentions, mode=mode
                )
            hidden = outputs[0]
            if use_cache:
                cache += (outputs[-1],)
            if output_attentions:
                all_weights = all_weights + (outputs[1],)
                if len(outputs) > 3:
                    all_cross = all_cross + (outputs[2],)
        if output_hidden_states:
            all_hidden = all_hidden + (hidden,)
        if not return_dict:
            return tuple(v for v in [hidden, cache, all_hidden, all_weights, all_cross] if v is not None)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=hidden,
            past_key_values=cache,
            hidden_states=all_hidden,
            attentions=all_weights,
            cross_attentions=all_cross,
        )


class CaptionPreTrainedModel(PreTrainedModel):
    config_class = CaptionConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _keys_to_ignore_on_load_missing = [r"position_ids"]

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, nn.LayerNorm):
            module.bias.data.zero_()
            module.weight.data.fill_(1.0)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()

    def _set_gradient_checkpointing(self, module, value=False):
        if isinstance(module, CaptionEncoder):
            module.gradient_checkpointing = value


class CaptionModel(CaptionPreTrainedModel):
    def __init__(self, config, add_pooling_layer=True):
        super().__init__(config)
        self.config = config
        self.embeddings = CaptionEmbeddings(config)
        self.encoder = CaptionEncoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    def _prune_heads(self, heads_to_prune):
        for layer, heads in heads_to_prune.items():
            self.encoder.layer[layer].attention.prune_heads(heads)

    def get_extended_attention_mask(self, attention_mask, input_shape, device, is_decoder):
        if attention_mask.dim() == 3:
            extended = attention_mask[:, None, :, :]
        elif attention_mask.dim() == 2 and is_decoder:
            length = attention_mask.shape[1]
            steps = torch.arange(length, device=device)
            causal = (steps[None, :] <= steps[:, None])[-input_shape[1] :].to(attention_mask.dtype)
            extended = causal[None, None, :, :] * attention_mask[:, None, None, :]
        elif attention_mask.dim() == 2:
            extended = attention_mask[:, None, None, :]
        else:
            raise ValueError(f"Wrong shape of the mask: {tuple(attention_mask.shape)}")
        return (1.0 - extended.to(dtype=self.dtype)) * -10000.0

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        head_mask=None,
        inputs_embeds=None,
        encoder_embeds=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        past_key_values=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        is_decoder=False,
        mode="fusion",
    ):
        output_attentions = output_attentions if output_attentions is not None else self.config.output_attentions
        output_hidden_states = (
            output_hidden_states if output_hidden_states is not None else self.config.output_hidden_states
        )
        return_dict = return_dict if return_dict is not None else self.config.use_return_dict
        if is_decoder:
            use_cache = use_cache if use_cache is not None else self.config.use_cache
        else:
            use_cache = False
        given = input_ids if input_ids is not None else inputs_embeds if inputs_embeds is not None else encoder_embeds
        if given is None:
            raise ValueError("You have to specify input_ids, inputs_embeds or encoder_embeds")
        batch, length = given.size()[:2]
        past_length = past_key_values[0][0].shape[2] if past_key_values is not None else 0
        if attention_mask is None:
            attention_mask = torch.ones((batch, past_length + length), device=given.device)
        mask = self.get_extended_attention_mask(attention_mask, (batch, length), given.device, is_decoder)
        if encoder_hidden_states is not None:
            if encoder_attention_mask is None:
                encoder_attention_mask = torch.ones(encoder_hidden_states.size()[:2], device=given.device)
            encoder_mask = self.invert_attention_mask(encoder_attention_mask)
        else:
            encoder_mask = None
        head_mask = self.get_head_mask(head_mask, self.config.num_hidden_layers)
        hidden = encoder_embeds
        if hidden is None:
            hidden = self.embeddings(input_ids, inputs_embeds, past_length)
        outputs = self.encoder(
            hidden, mask, head_mask, encoder_hidden_states, encoder_mask, past_key_values, use_cache,
            output_attentions, output_hidden_states, return_dict, mode,
        )  # fmt: skip
        pooled = torch.tanh(self.pooler(outputs[0][:, 0])) if self.pooler is not None else None
        if not return_dict:
            return (outputs[0], pooled) + outputs[1:]
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=outputs[0],
            pooler_output=pooled,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )


class CaptionLMHead(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        # So that the bias is resized with the decoder.
        self.decoder.bias = self.bias

    def forward(self, hidden):
        return self.decoder(torch.tanh(self.transform(hidden)))


class CaptionLMHeadModel(CaptionPreTrainedModel):
    _keys_to_ignore_on_load_unexpected = [r"pooler"]
    _keys_to_ignore_on_load_missing = [r"position_ids", r"cls\.decoder\.bias"]
    _tied_weights_keys = ["cls.decoder.weight", "cls.decoder.bias"]

    def __init__(self, config):
        super().__init__(config)
        self.bert = CaptionModel(config, add_pooling_layer=False)
        self.cls = CaptionLMHead(config)
        self.init_weights()

    def get_output_embeddings(self):
        return self.cls.decoder

    def set_output_embeddings(self, new_embeddings):
        self.cls.decoder = new_embeddings

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        head_mask=None,
        inputs_embeds=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        labels=None,
        past_key_values=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        is_decoder=True,
        mode="fusion",
    ):
        return_dict = return_dict if return_dict is not None else self.config.use_return_dict
        if labels is not None:
            use_cache = False
        outputs = self.bert(
            input_ids,
            attention_mask=attention_mask,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            is_decoder=is_decoder,
            mode=mode,
        )
        scores = self.cls(outputs[0])
        loss = None
        if labels is not None:
            shifted = scores[:, :-1, :].contiguous()
            loss = nn.CrossEntropyLoss()(shifted.view(-1, self.config.vocab_size), labels[:, 1:].contiguous().view(-1))
        if not return_dict:
            output = (scores,) + outputs[2:]
            return ((loss,) + output) if loss is not None else output
        return CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=scores,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, attention_mask=None, **model_kwargs):
        if attention_mask is None:
            attention_mask = input_ids.new_ones(input_ids.shape)
        if past_key_values is not None:
            input_ids = input_ids[:, -1:]
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "encoder_hidden_states": model_kwargs.get("encoder_hidden_states"),
            "encoder_attention_mask": model_kwargs.get("encoder_attention_mask"),
            "use_cache": model_kwargs.get("use_cache"),
            "mode": model_kwargs.get("mode", "fusion"),
            "is_decoder": True,
        }

    def _reorder_cache(self, past_key_values, beam_idx):
        reordered = ()
        for layer_past in past_key_values:
            reordered += (tuple(state.index_select(0, beam_idx) for state in layer_past),)
        return reordered
