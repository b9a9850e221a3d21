"""Recipe: which tensors of a model are quantized, and how. Data, which goes into a model's config."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from modelwright.core.errors import InputError, check_choice, reject_unknown
from modelwright.quantization.descriptor import (
    QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW,
    QUANT_DESC_8BIT_PER_TENSOR,
    QuantDescriptor,
)

PLACEMENTS = ("linear", "linear+matmul", "full")
Rule = tuple[Literal["enable", "disable"], str]


@dataclass(frozen=True)
class Recipe:
    """Which tensors are quantized, and how.

    placement: "linear" quantizes inputs and weights of linear layers, "linear+matmul" also the operands of attention's
    two products, "full" also both sides of residual additions, as QDQBERT does. The last two are for models with places
    for such quantizers (BERT). input: of all quantizers but those of weights. weight: of weights; an axis of 0 means
    the output channels, wherever they lie. layers: a regular expression for the names of linear layers; None is those
    inside the model's encoder and decoder layers. rules: ("enable" or "disable", regular expression for quantizer
    names), one after another. Raises InputError for another placement or rule.
    Source: Wu et al. 2020 (arXiv 2004.09602), section 4.
    """

    placement: str = "linear"
    input: QuantDescriptor = field(default_factory=lambda: QUANT_DESC_8BIT_PER_TENSOR)
    weight: QuantDescriptor = field(default_factory=lambda: QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW)
    layers: str | None = None
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        check_choice("Recipe: placement", self.placement, PLACEMENTS)
        for rule in self.rules:
            if len(rule) != 2 or rule[0] not in ("enable", "disable"):
                raise InputError(f'Recipe: expected rules such as ("disable", "output.dense"), got {rule!r}')

    @property
    def slots(self) -> tuple[str, ...]:
        """How the names of the places begin that get a quantizer beside the linear layers."""
        return {"linear": (), "linear+matmul": ("matmul_",), "full": ("matmul_", "add_")}[self.placement]

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values, for JSON; `from_dict` makes it again."""
        return {
            "placement": self.placement,
            "input": self.input.dict(),
            "weight": self.weight.dict(),
            "layers": self.layers,
            "rules": [list(rule) for rule in self.rules],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe of `to_dict`; what is absent has its default. Raises as the constructors do."""
        reject_unknown("Recipe", values, cls.__dataclass_fields__)
        fields = dict(values)
        for name in ("input", "weight"):
            if name in fields:
                fields[name] = QuantDescriptor(**fields[name])
        fields["rules"] = tuple((rule[0], rule[1]) for rule in fields.get("rules", ()))
        return cls(**fields)
