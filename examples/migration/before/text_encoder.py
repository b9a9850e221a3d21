"""A text encoder that also reads an image: BERT with a cross attention in each layer, and heads that can be pruned."""

import math
import tempfile

import torch
from torch import nn

import modelwright
from modelwright.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions
from modelwright.modeling_utils import apply_chunking_to_forward, find_pruneable_heads_and_indices, prune_linear_layer
from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.bert.modeling_bert import (
    BertEmbeddings,  # words, positions and segments
    BertIntermediate,
    BertOutput,
    BertPooler,
    BertPreTrainedModel,
)
from modelwright.utils import logging

logger = logging.get_logger(__name__)


class ImageTextConfig(BertConfig):
    model_type = "image-text-bert"

    def __init__(self, image_width=48, **kwargs):
        super().__init__(**kwargs)
        self.image_width = image_width


class Attention(nn.Module):
    """Attention of the text to itself, or to the patches of an image."""

    def __init__(self, config, source_width):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(source_width, config.hidden_size)
        self.value = nn.Linear(source_width, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.pruned_heads = set()

    def prune_heads(self, heads):
        heads, index = find_pruneable_heads_and_indices(heads, self.num_heads, self.head_size, self.pruned_heads)
        self.query = prune_linear_layer(self.query, index)
        self.key = prune_linear_layer(self.key, index)
        self.value = prune_linear_layer(self.value, index)
        self.output = prune_linear_layer(self.output, index, dim=1)
        self.num_heads -= len(heads)
        self.pruned_heads |= heads

    def split(self, states):
        return states.view(*states.shape[:2], self.num_heads, self.head_size).transpose(1, 2)

    def forward(self, hidden_states, source, mask, head_mask):
        query, key, value = map(self.split, (self.query(hidden_states), self.key(source), self.value(source)))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_size) + mask
        weights = self.dropout(scores.softmax(-1))
        if head_mask is not None:
            weights = weights * head_mask
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        return self.norm(hidden_states + self.dropout(self.output(mixed))), weights


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.attention = Attention(config, config.hidden_size)
        self.cross_attention = Attention(config, config.image_width)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config)

    def feed_forward(self, states):
        return self.output(self.intermediate(states), states)

    def forward(self, states, mask, image, image_mask, head_mask):
        states, weights = self.attention(states, states, mask, head_mask)
        states, cross_weights = self.cross_attention(states, image, image_mask, None)
        states = apply_chunking_to_forward(self.feed_forward, self.config.chunk_size_feed_forward, 1, states)
        return states, weights, cross_weights


class ImageTextModel(BertPreTrainedModel):
    config_class = ImageTextConfig

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.pooler = BertPooler(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def _prune_heads(self, heads_to_prune):
        for layer, heads in heads_to_prune.items():
            self.layers[layer].attention.prune_heads(set(heads))

    def forward(self, input_ids, image, attention_mask=None, image_mask=None, head_mask=None, output_attentions=False):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if image_mask is None:
            image_mask = torch.ones(image.shape[:2], device=image.device)
        mask = self.get_extended_attention_mask(attention_mask, input_ids.shape)
        image_mask = self.invert_attention_mask(image_mask)
        head_masks = self.get_head_mask(head_mask, self.config.num_hidden_layers)
        states, attentions, crosses = self.embeddings(input_ids=input_ids), (), ()
        for layer, layer_head_mask in zip(self.layers, head_masks, strict=True):
            states, weights, cross_weights = layer(states, mask, image, image_mask, layer_head_mask)
            attentions, crosses = (*attentions, weights), (*crosses, cross_weights)
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=states,
            pooler_output=self.pooler(states),
            attentions=attentions if output_attentions else None,
            cross_attentions=crosses if output_attentions else None,
        )


def main():
    modelwright.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = ImageTextConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        chunk_size_feed_forward=4,
    )
    model = ImageTextModel(config).eval()
    words, image = torch.randint(0, 99, (2, 8)), torch.randn(2, 5, config.image_width)
    masked = model(words, image, head_mask=torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0] * 4])).last_hidden_state
    model.prune_heads({0: [1]})
    output = model(words, image, output_attentions=True)
    print("a pruned head is a masked head:", torch.allclose(output.last_hidden_state, masked, atol=1e-5))
    print("heads of the layers:", [weights.shape[1] for weights in output.attentions])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = ImageTextModel.from_pretrained(folder).eval()
    same = torch.equal(again(words, image).last_hidden_state, output.last_hidden_state)
    print("the same after saving and loading:", same)
    return output.last_hidden_state


if __name__ == "__main__":
    main()
