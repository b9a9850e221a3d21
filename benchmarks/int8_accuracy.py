"""What INT8 costs all-MiniLM-L6-v2 in accuracy: cosines to the float embeddings of 200 fixed sentences.

Half of the sentences are everyday ones, half are from the docstrings of Python's standard library. Ranges come from 128
sentences of the language reference, of which none is among the 200. Recipes: "linear" (asymmetric, static), "auto" (the
default of `modelwright quantize`), QDQBERT's own places ("full"), and those by transformers' deprecated QDQBERT with
pytorch-quantization 2.1.3.
"""

import argparse
import copy
import json
import time
import warnings
from pathlib import Path

import harness

RECIPES = ("linear", "auto", "full", "pytorch-quantization, full")
LENGTH = 128
ROUNDS = 40


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
    model = QDQBertModel.from_pretrained(
        harness.minilm(), config=QDQBertConfig.from_pretrained(harness.minilm())
    ).eval()
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
    from modelwright.quantization import QuantDescriptor, Recipe, swap
    from modelwright.quantization.ptq import auto_quantize, calibrate
    from modelwright.training.examples import Examples

    if recipe == "auto":
        # As the command does: a quarter of the texts judges.
        parts = [[t for i, t in enumerate(texts) if i % 4], texts[::4], texts[:64:4]]
        seen, held_out, few = (Examples(calibration.kind, part) for part in parts)
        result = auto_quantize(model, lambda: seen(model), lambda: held_out(model), run_few=lambda: few(model))
        return judged(model), result
    swap(model, Recipe(recipe, input=QuantDescriptor(asymmetric=recipe != "full")))
    calibrate(model, lambda: calibration(model))
    return judged(model), None


def keep(model, folder: Path) -> None:
    """Write a quantized model and its ONNX file."""
    from modelwright.export.onnx import export_onnx

    model.save_pretrained(folder)
    export_onnx(model, folder / "model.onnx")


def time_models(folder: Path, recipes: list[str]) -> None:
    """Print how many times as fast as PyTorch's float model the exported ones are: one text, one thread."""
    import torch

    from modelwright.cli.texts import load_model
    from modelwright.export.runtime import OnnxModel

    torch.set_num_threads(1)
    models = {"float": load_model(str(harness.minilm()))}
    models |= {recipe: OnnxModel.from_pretrained(folder / recipe, threads=1) for recipe in recipes}
    ids = torch.arange(LENGTH)[None] + 1000
    taken: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, model in models.items():
                start = time.perf_counter()
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
                taken[name].append((time.perf_counter() - start) * 1e3)
    fastest = {name: min(each) for name, each in taken.items()}
    for recipe in recipes:
        print(f"{recipe}: {fastest[recipe]:.2f} ms, {fastest['float'] / fastest[recipe]:.2f} times the float model")
    add_result({"milliseconds, batch 1, length 128, one thread": fastest})


def add_result(part: dict) -> None:
    """Write figures to the results, beside those that are there."""
    path = harness.RESULTS / "int8_accuracy.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    before.pop("machine", None)
    print(harness.write_result("int8_accuracy", before | part))


def main() -> None:
    """Print the table and write the JSON."""
    from modelwright.cli.texts import load_model
    from modelwright.models.auto.tokenization_auto import AutoTokenizer
    from modelwright.quantization.fidelity import Fidelity
    from modelwright.training.examples import Examples, TextKind

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to keep the quantized models, for --time")
    parser.add_argument("--time", action="store_true", help="time what --folder keeps of our recipes, and nothing else")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES, metavar="RECIPE")
    arguments = parser.parse_args()
    if arguments.time:
        if arguments.folder is None:
            parser.error("--time needs --folder")
        time_models(arguments.folder, [each for each in arguments.recipes if each in RECIPES[:3]])
        return
    kind = TextKind(AutoTokenizer.from_pretrained(harness.minilm()), LENGTH)
    texts = harness.sentences("calibration")
    calibration, judged = (Examples(kind, each) for each in (texts, harness.sentences("judge")))
    model = load_model(str(harness.minilm()))
    reference = judged(model)
    rows, found = [["recipe", "mean cosine", "lowest", "stayed float"]], {}
    for recipe in arguments.recipes:
        result = None
        if recipe in RECIPES[:3]:
            quantized = copy.deepcopy(model)
            vectors, result = ours(recipe, quantized, calibration, judged, texts)
            if arguments.folder is not None:
                keep(quantized, arguments.folder / recipe)
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
    add_result(found)


if __name__ == "__main__":
    main()
