"""Every model on a GPU is the model on the processor: outputs, gradients, placement, generation."""

import pytest
import torch

from modelwright.placement.planner import total_bytes

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.usefixtures("rotations_of_the_processor"),
]


def moved(inputs):
    return {name: x.cuda() if isinstance(x, torch.Tensor) else x for name, x in inputs.items()}


def tensors(result):
    values = [result] if isinstance(result, torch.Tensor) else list(result.values())
    return [x for x in values if isinstance(x, torch.Tensor)]


def assert_near(ours, expected, tolerance=1e-4):
    ours = ours.detach().cpu()
    assert (ours - expected).abs().max() <= tolerance * (1 + expected.abs().max())


def test_outputs_and_gradients(model):
    inputs = model.dummy_inputs
    expected = tensors(model(**inputs))
    expected[0].float().square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    model.cuda()
    outputs = tensors(model(**moved(inputs)))
    assert all(x.is_cuda for x in outputs)
    for one, other in zip(outputs, expected, strict=True):
        assert_near(one, other.detach())
    outputs[0].float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (gradients[name] is None), name
        if parameter.grad is not None:
            assert_near(parameter.grad, gradients[name])


def test_a_model_between_gpu_and_memory(placeable, tmp_path):
    if placeable._no_split_modules is None:
        pytest.skip("cannot be spread")
    inputs = placeable.dummy_inputs
    with torch.no_grad():
        expected = tensors(placeable(**inputs))
    placeable.save_pretrained(tmp_path)
    room = total_bytes(placeable) * 7 // 10
    spread = type(placeable).from_pretrained(tmp_path, device_map="auto", max_memory={0: room, "cpu": "1GiB"})
    assert set(spread.hf_device_map.values()) == {0, "cpu"}
    with torch.no_grad():
        for one, other in zip(tensors(spread(**moved(inputs))), expected, strict=True):
            assert_near(one, other)


def test_generation(public_row):
    model = public_row.make_settled()
    if not model.can_generate():
        pytest.skip("does not generate")
    inputs = {name: x for name, x in model.dummy_inputs.items() if name in ("input_ids", "attention_mask")}
    settings = {"max_new_tokens": 3, "do_sample": False}
    expected = model.generate(**inputs, **settings)
    ours = model.cuda().generate(**moved(inputs), **settings)
    assert ours.is_cuda
    assert torch.equal(ours.cpu(), expected)
    beams = model.generate(**moved(inputs), **settings, num_beams=2)
    assert torch.equal(beams.cpu(), model.cpu().generate(**inputs, **settings, num_beams=2))
