"""What every model must say about itself: sizes, costs, masks, hooks; and small switches."""

import pytest
import torch

from modelwright.core.errors import InputError


def test_costs(model):
    inputs = model.dummy_inputs
    tokens = inputs[model.main_input_name].numel()
    assert model.estimate_tokens(inputs) == tokens
    trained = model.num_parameters(exclude_embeddings=True)
    assert model.floating_point_ops(inputs) == 6 * tokens * trained
    forward = model.count_floating_point_ops(inputs, backward=False)
    assert 0 < forward < model.count_floating_point_ops(inputs)


def test_only_trainable_parameters(model):
    words = model.get_input_embeddings().weight
    words.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == model.num_parameters() - words.numel()


def test_memory_hooks(model):
    model.add_memory_hooks()
    model(**model.dummy_inputs)
    assert model.mem_rss_pre_forward > 0
    model.reset_memory_hooks_state()
    assert {module.mem_rss_pre_forward for module in model.modules()} == {0}


def test_masks_in_the_models_dtype(model):
    model.to(torch.bfloat16)
    mask = torch.tensor([[1, 0]])
    lowest = torch.finfo(torch.bfloat16).min
    assert model.invert_attention_mask(mask).tolist() == [[[[0, lowest]]]]
    extended = model.get_extended_attention_mask(mask, (1, 2))
    assert extended.dtype == torch.bfloat16
    assert extended.shape == (1, 1, 2 if model.config.is_decoder else 1, 2)
    head_mask = model.get_head_mask(torch.ones(2), 3, is_attention_chunked=True)
    assert (head_mask.shape, head_mask.dtype) == ((3, 1, 2, 1, 1, 1), torch.bfloat16)


def test_a_frozen_model_gives_gradients_to_its_input(model):
    model.requires_grad_(False)
    model.enable_input_require_grads()
    output = model(**model.dummy_inputs)
    assert (output if isinstance(output, torch.Tensor) else output[0]).requires_grad
    model.disable_input_require_grads()
    output = model(**model.dummy_inputs)
    assert not (output if isinstance(output, torch.Tensor) else output[0]).requires_grad


def test_base_model_and_generation_are_what_the_class_says(model):
    assert model.base_model is getattr(model, model.base_model_prefix, model)
    assert model.framework == "pt"
    assert type(model).can_generate() == (model.generation_config is not None)
    if not model.can_generate():
        with pytest.raises(NotImplementedError, match="does not define prepare_inputs_for_generation"):
            model.generate(torch.ones(1, 1, dtype=torch.long))
        return
    if model.config.model_type != "toy":  # The toys return plain tensors.
        ids = model.generate(torch.tensor([[1, 2]]), max_new_tokens=2, min_new_tokens=2, eos_token_id=1)
        assert ids.shape == (1, 3 if model.config.is_encoder_decoder else 4)


def test_an_id_outside_of_the_vocabulary_names_the_way_out(model):
    wrong = {**model.dummy_inputs, "input_ids": model.dummy_inputs["input_ids"].clone()}
    wrong["input_ids"][0, 0] = model.config.vocab_size
    with pytest.raises(InputError, match=r"resize_token_embeddings\(len\(tokenizer\)\)"):
        model(**wrong)
    wrong["input_ids"][0, 0] = -1
    with pytest.raises(InputError, match="expected ids from 0 to .*, got -1"):
        model(**wrong)
