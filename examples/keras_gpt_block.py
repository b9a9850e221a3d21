"""Train a GPT block made of modelwright's Keras layers, on any backend of Keras, then save and reload it.

    KERAS_BACKEND=jax python examples/keras_gpt_block.py        or tensorflow, or torch

The task: each next token is the sum of the two before it, modulo the vocabulary. The first guess of each text cannot be
known, and is ignored (-100). A model that has learned nothing has a loss of log(11) = 2.4.
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

from modelwright import PretrainedConfig, TFConv1D, TFSharedEmbeddings, keras_serializable
from modelwright.keras_layers import TaskLoss, get_tf_activation


class BlockConfig(PretrainedConfig):
    """Sizes of the block."""

    model_type = "keras-gpt-block"

    def __init__(self, vocab_size=11, hidden_size=32, num_attention_heads=4, max_position_embeddings=16, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.max_position_embeddings = max_position_embeddings


@keras_serializable
class Block(keras.Model):
    """Embeddings, one block of causal attention and feed-forward, and scores from the same embeddings."""

    config_class = BlockConfig

    def __init__(self, config, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        size, heads = config.hidden_size, config.num_attention_heads
        self.heads, self.head_size, self.positions = heads, size // heads, config.max_position_embeddings
        self.tokens = TFSharedEmbeddings(config.vocab_size, size, name="tokens")
        self.place = keras.layers.Embedding(config.max_position_embeddings, size, name="place")
        self.norm_1 = keras.layers.LayerNormalization(name="norm_1")
        self.norm_2 = keras.layers.LayerNormalization(name="norm_2")
        self.norm_3 = keras.layers.LayerNormalization(name="norm_3")
        self.attention_in = TFConv1D(3 * size, size, initializer_range=0.2, name="attention_in")
        self.attention_out = TFConv1D(size, size, initializer_range=0.2, name="attention_out")
        self.wide = TFConv1D(4 * size, size, initializer_range=0.2, name="wide")
        self.narrow = TFConv1D(size, 4 * size, initializer_range=0.1, name="narrow")
        self.activation = get_tf_activation("gelu_new")

    def attend(self, x):
        """Mix each token with those before it: (batch, tokens, size) -> the same."""
        length = ops.shape(x)[1]
        parts = ops.reshape(self.attention_in(x), (-1, length, 3, self.heads, self.head_size))
        parts = ops.transpose(parts, (2, 0, 3, 1, 4))
        scores = ops.matmul(parts[0], ops.transpose(parts[1], (0, 1, 3, 2))) / self.head_size**0.5
        order = ops.arange(length)
        scores = ops.where(order[:, None] >= order[None, :], scores, ops.cast(-1e4, scores.dtype))
        mixed = ops.transpose(ops.matmul(ops.softmax(scores), parts[2]), (0, 2, 1, 3))
        return self.attention_out(ops.reshape(mixed, (-1, length, self.heads * self.head_size)))

    def call(self, ids):
        """Return scores: (batch, tokens) -> (batch, tokens, vocab_size)."""
        x = self.tokens(ids) + self.place(ops.arange(ops.shape(ids)[1]))
        x = x + self.attend(self.norm_1(x))
        x = x + self.narrow(self.activation(self.wide(self.norm_2(x))))
        return self.tokens(self.norm_3(x), mode="linear")


def data(count: int, length: int = 12, vocab_size: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids, labels), both (count, length); label t is id t+1, but for those that cannot be known."""
    texts = np.random.RandomState(0).randint(0, vocab_size, (count, length + 1))
    for t in range(2, length + 1):
        texts[:, t] = (texts[:, t - 1] + texts[:, t - 2]) % vocab_size
    labels = texts[:, 1:].copy()
    labels[:, 0] = -100
    return texts[:, :-1], labels


def train(*, epochs: int = 30, jit_compile: bool | str = "auto", verbose: int = 2) -> tuple[Block, list[float]]:
    """Return the trained model and the loss of each epoch."""
    keras.utils.set_random_seed(0)
    ids, labels = data(512)
    model = Block(BlockConfig())
    model.compile(keras.optimizers.Adam(3e-3), loss=TaskLoss("causal_language_modeling"), jit_compile=jit_compile)
    history = model.fit(ids, labels, batch_size=64, epochs=epochs, verbose=verbose)
    return model, history.history["loss"]


if __name__ == "__main__":
    # torch would look for a C++ compiler, and take longer to compile than to train.
    model, losses = train(jit_compile=False if keras.backend.backend() == "torch" else "auto")
    ids, _ = data(4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block.keras"
        model.save(path)
        again = keras.models.load_model(path)
        same = np.allclose(model.predict(ids, verbose=0), again.predict(ids, verbose=0), atol=1e-6)
    print(f"{keras.backend.backend()}: loss {losses[0]:.2f} -> {losses[-1]:.3f}; the same after reloading: {same}")
    sys.exit(0 if losses[-1] < 0.5 and same else 1)
