"""A module as a user writes it: layers and models with a configuration, saved in one process, loaded in another."""

import keras
from keras import ops

from modelwright import PretrainedConfig, TFConv1D, TFSequenceSummary, TFSharedEmbeddings, keras_serializable


class TinyConfig(PretrainedConfig):
    model_type = "tiny"

    def __init__(self, vocab_size=9, hidden_size=6, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size


@keras_serializable
class TinyEncoder(keras.layers.Layer):
    """Takes a configuration and an argument of its own, one of which is an object of Keras."""

    config_class = TinyConfig

    def __init__(self, config, scale=1.0, *, constraint=None, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.scale = scale
        self.constraint = constraint
        self.embeddings = TFSharedEmbeddings(config.vocab_size, config.hidden_size, name="embeddings")
        self.conv1d = TFConv1D(config.hidden_size, config.hidden_size, name="conv1d")

    def call(self, ids):
        return self.conv1d(self.embeddings(ids)) * self.scale


@keras_serializable
class TinyModel(keras.Model):
    """Takes two inputs by name, ids and positions, both integers, and no keywords."""

    config_class = TinyConfig

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.encoder = TinyEncoder(config, scale=0.5, name="encoder")
        self.pooler = TFSequenceSummary(config, name="pooler")

    def call(self, inputs):
        hidden = self.encoder(inputs["ids"])
        return self.pooler({"hidden_states": hidden, "cls_index": inputs["position"]}) + ops.mean(hidden)
