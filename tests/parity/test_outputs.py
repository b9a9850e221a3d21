"""Our output classes have upstream's fields in upstream's order."""

import dataclasses

import pytest

from modelwright.outputs import base, model_outputs

CLASSES = [
    cls
    for cls in vars(model_outputs).values()
    if isinstance(cls, type) and issubclass(cls, base.ModelOutput) and cls is not base.ModelOutput
]


@pytest.mark.parity
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_fields(cls: type) -> None:
    import transformers.modeling_outputs

    theirs = getattr(transformers.modeling_outputs, cls.__name__)
    names = [field.name for field in dataclasses.fields(cls)]
    assert names == [field.name for field in dataclasses.fields(theirs)]
    assert list(cls(**{name: name for name in names})) == list(theirs(**{name: name for name in names}))


@pytest.mark.parity
def test_all_classes_for_text_are_here() -> None:
    import transformers.modeling_outputs as upstream

    # Classes for images, sound, time series and mixtures of experts: no model of ours returns them.
    others = ("Image", "Semantic", "Depth", "Wav2Vec2", "XVector", "Backbone", "Spectrogram", "TS", "MoE", "Moe")
    theirs = {name for name, cls in vars(upstream).items() if dataclasses.is_dataclass(cls) and name != "ModelOutput"}
    wanted = {name for name in theirs if not any(word in name for word in others)}
    wanted -= {"BaseModelOutputWithPoolingAndNoAttention", "BaseModelOutputWithPoolingAndProjection"}
    wanted -= {"MaskedImageModelingOutput"}
    assert wanted == {cls.__name__ for cls in CLASSES}
