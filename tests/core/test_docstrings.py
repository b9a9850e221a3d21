"""The docstring decorators of 4.x's model files."""

import inspect

from modelwright.utils import (
    add_code_sample_docstrings,
    add_end_docstrings,
    add_start_docstrings,
    add_start_docstrings_to_model_forward,
    replace_return_docstrings,
)


class SomeOutput:
    """What a model returns."""


@add_start_docstrings("The bare model. ", "It has no head.")
class Model:
    """Details."""

    @add_start_docstrings_to_model_forward("Args: x. ")
    @add_code_sample_docstrings(
        processor_class="AutoTokenizer", checkpoint="some/model", output_type=SomeOutput, config_class="SomeConfig",
        expected_output="'paris'",
    )  # fmt: skip
    def forward(self, x):
        """Compute."""
        return x + 1

    @replace_return_docstrings(output_type=SomeOutput, config_class="a.b.SomeConfig")
    def score(self, x):
        """Score.

        Returns:

        """
        return x

    @add_end_docstrings(" The end.")
    def bare(self):
        return 3


def test_texts_are_put_together_and_functions_stay_what_they_are():
    assert Model.__doc__ == "The bare model. It has no head.Details."
    assert Model.forward.__doc__.startswith("Args: x. Compute.")
    assert "SomeOutput, or a tuple with return_dict=False, as a SomeConfig says." in Model.forward.__doc__
    assert "    model = Model.from_pretrained('some/model')" in Model.forward.__doc__
    assert "expected_output: 'paris'" in Model.forward.__doc__
    assert Model.score.__doc__.count("Returns:") == 1
    assert Model.score.__doc__.startswith("Score.")
    assert Model.bare.__doc__ == " The end."
    assert (Model().forward(1), Model().score(5), Model().bare()) == (2, 5, 3)
    assert list(inspect.signature(Model.forward).parameters) == ["self", "x"]
