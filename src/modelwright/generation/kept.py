"""What decoding keeps of each step for a caller who asked for more than ids."""

from typing import Any

from torch import Tensor

from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.outputs import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    GenerateOutput,
)

# Names in the model's output -> names in the result, for a decoder and for an encoder-decoder.
_OF_DECODER = {"attentions": "attentions", "hidden_states": "hidden_states"}
_OF_ENCODER_DECODER = {
    "decoder_attentions": "attentions", "cross_attentions": "attentions", "decoder_hidden_states": "hidden_states",
}  # fmt: skip


class Kept:
    """The outputs of each step that were asked for, each a growing tuple or None."""

    def __init__(self, settings: GenerationConfig, *, encoder_decoder: bool) -> None:
        wanted = settings.return_dict_in_generate
        self.encoder_decoder = encoder_decoder
        self.scores: tuple[Tensor, ...] | None = () if wanted and settings.output_scores else None
        self.logits: tuple[Tensor, ...] | None = () if wanted and settings.output_logits else None
        self._kinds = {
            kind for kind in ("attentions", "hidden_states") if wanted and getattr(settings, f"output_{kind}")
        }
        names = _OF_ENCODER_DECODER if encoder_decoder else _OF_DECODER
        self._of_model: dict[str, tuple[Any, ...]] = {name: () for name, kind in names.items() if kind in self._kinds}

    @property
    def of_logits(self) -> bool:
        """Whether each step's logits are kept, as they are or as scores."""
        return self.scores is not None or self.logits is not None

    @property
    def needs_all_rows(self) -> bool:
        """Whether something is kept of the model's output itself, in which each row of the batch has its place."""
        return bool(self._of_model)

    def add(self, logits: Tensor, scores: Tensor, outputs: Any) -> None:
        """Keep one step: logits before and scores after the processors, [rows, vocabulary], and the model's output."""
        if self.scores is not None:
            self.scores += (scores,)
        if self.logits is not None:
            self.logits += (logits,)
        for name in self._of_model:
            self._of_model[name] += (getattr(outputs, name, None),)

    def result(self, sequences: Tensor, model_kwargs: dict[str, Any], beams: dict[str, Any] | None) -> GenerateOutput:
        """Return the ids and all that was kept; `beams` are the fields that only beam search has."""
        fields: dict[str, Any] = {
            "sequences": sequences,
            "scores": self.scores,
            "logits": self.logits,
            "past_key_values": model_kwargs.get("past_key_values"),
            **self._of_model,
        }
        if self.encoder_decoder:
            outputs = model_kwargs["encoder_outputs"]
            fields |= {f"encoder_{kind}": getattr(outputs, kind, None) for kind in self._kinds}
            if beams is None:
                return GenerateEncoderDecoderOutput(**fields)
            return GenerateBeamEncoderDecoderOutput(**fields, **beams)
        if beams is None:
            return GenerateDecoderOnlyOutput(**fields)
        return GenerateBeamDecoderOnlyOutput(**fields, **beams)
