"""Small models for the tests of loading and saving: one of ours, and one as somebody wrote it for 4.x."""

import torch
from torch import nn

from modelwright.config.configuration import PretrainedConfig
from modelwright.pretrained.modeling import PreTrainedModel


class ToyConfig(PretrainedConfig):
    model_type = "toy"
    attribute_map = {"n_embd": "hidden_size"}

    def __init__(self, vocab_size=11, hidden_size=8, num_hidden_layers=2, initializer_range=0.5, **kwargs):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.initializer_range = initializer_range
        super().__init__(**kwargs)


class ToyLayer(nn.Module):
    """A linear layer scaled by powers of two that are computed, not stored."""

    def __init__(self, config, *, device=None, dtype=None):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, device=device, dtype=dtype)
        self.norm = nn.LayerNorm(config.hidden_size, device=device, dtype=dtype)
        self.register_buffer("scale", torch.empty(config.hidden_size, device=device), persistent=False)
        self.init_buffers()

    def init_buffers(self):
        self.scale.copy_(2.0 ** -torch.arange(self.scale.shape[0], device=self.scale.device))

    def forward(self, hidden):
        return hidden + self.norm(self.dense(hidden)) * self.scale.to(hidden.dtype)


class ToyPreTrainedModel(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class ToyModel(ToyPreTrainedModel):
    def __init__(self, config, *, device=None, dtype=None):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size, device=device, dtype=dtype)
        self.layers = nn.ModuleList(
            ToyLayer(config, device=device, dtype=dtype) for _ in range(config.num_hidden_layers)
        )
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def set_input_embeddings(self, value):
        self.words = value

    def forward(self, input_ids):
        hidden = self.words(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class ToyForCausalLM(ToyPreTrainedModel):
    _tied_weights_keys = ["lm_head.weight"]

    def __init__(self, config, *, device=None, dtype=None):
        super().__init__(config)
        self.toy = ToyModel(config, device=device, dtype=dtype)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, device=device, dtype=dtype)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, new_embeddings):
        self.lm_head = new_embeddings

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}

    def forward(self, input_ids):
        return self.lm_head(self.toy(input_ids))


class ToyForClassification(ToyPreTrainedModel):
    def __init__(self, config, *, device=None, dtype=None):
        super().__init__(config)
        self.toy = ToyModel(config, device=device, dtype=dtype)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels, device=device, dtype=dtype)
        self.post_init()

    def forward(self, input_ids):
        return self.classifier(self.toy(input_ids)[:, 0])


# --- written for transformers 4.x; only the imports are modelwright's -------------------------------------------------


class LegacyConfig(PretrainedConfig):
    model_type = "legacy"

    def __init__(self, vocab_size=11, hidden_size=8, initializer_range=0.02, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.initializer_range = initializer_range


class LegacyPreTrainedModel(PreTrainedModel):
    config_class = LegacyConfig
    base_model_prefix = "encoder"

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, LegacyBlock):
            module.gain.data = torch.full_like(module.gain.data, 3.0)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()


class LegacyBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.gain = nn.Parameter(torch.ones(config.hidden_size))
        self.shift = nn.Parameter(torch.Tensor(config.hidden_size).zero_())
        self.register_buffer("position_ids", torch.arange(16).expand((1, -1)))
        self.register_buffer("inv_freq", 1.0 / (10.0 ** torch.arange(0, config.hidden_size).float()), persistent=False)
        self.register_buffer("bias", torch.zeros(config.hidden_size), persistent=False)

    def forward(self, hidden):
        return self.dense(hidden) * self.gain + self.shift + self.inv_freq.to(hidden.dtype) + self.bias


class LegacyModel(LegacyPreTrainedModel):
    def __init__(self, config, add_pooling_layer=True):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.block = LegacyBlock(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self):
        return self.words

    def set_input_embeddings(self, value):
        self.words = value

    def forward(self, input_ids):
        return self.block(self.words(input_ids))


class LegacyForMaskedLM(LegacyPreTrainedModel):
    _keys_to_ignore_on_load_missing = [r"position_ids", r"decoder\.bias"]
    _tied_weights_keys = ["decoder.weight", "decoder.bias"]

    def __init__(self, config):
        super().__init__(config)
        self.encoder = LegacyModel(config, add_pooling_layer=False)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.decoder.bias = self.bias
        self.post_init()

    def get_output_embeddings(self):
        return self.decoder

    def set_output_embeddings(self, new_embeddings):
        self.decoder = new_embeddings

    def forward(self, input_ids):
        return self.decoder(self.encoder(input_ids))
