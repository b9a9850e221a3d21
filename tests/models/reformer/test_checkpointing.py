from modelwright.core import logging
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import ReformerModel


def test_enabling_checkpointing_says_once_that_nothing_is_stored(caplog):
    logging.forget_once()
    model = ReformerModel(
        ReformerConfig(
            attn_layers=["local"], hidden_size=8, num_attention_heads=1, attention_head_size=8, axial_pos_embds=False,
            max_position_embeddings=64,
        )
    )  # fmt: skip
    model.gradient_checkpointing_enable()
    model.gradient_checkpointing_enable()
    assert [record.getMessage() for record in caplog.records] == [
        "ReformerModel.gradient_checkpointing_enable changes nothing: "
        "the reversible stack already stores no activations."
    ]
    assert model.supports_gradient_checkpointing
    assert not model.is_gradient_checkpointing
