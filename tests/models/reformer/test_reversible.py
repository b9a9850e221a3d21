"""The reversible stack: its gradients are those of ordinary autograd, whatever the caller does with the model."""

import copy

import pytest
import torch
from small_reformer import LARGE, QUIET, assert_same_gradients, build, gradients, ids

from modelwright.models.reformer.layer import token_slices


class TestReversibleStack:
    def test_gradients_are_those_of_the_ordinary_stack_dropout_included(self):
        model = build().train()
        loss, reversible = gradients(model, ids())
        # Asking for hidden states turns the stack into an ordinary one; the seed makes the same draws.
        plain_loss, plain = gradients(model, ids(), output_hidden_states=True)
        assert torch.equal(loss, plain_loss)
        assert_same_gradients(plain, reversible)

    def test_another_seed_is_another_dropout(self):
        model = build().train()
        assert not torch.equal(gradients(model, ids(), seed=5)[0], gradients(model, ids(), seed=6)[0])

    @pytest.mark.parametrize("autocast", [False, True])
    @pytest.mark.parametrize("recompute", [True, False])
    @pytest.mark.parametrize("num_hashes", [1, 2])
    def test_saved_bytes_grow_by_attentions_outputs_at_most(self, num_hashes, recompute, autocast):
        forward_only = []
        for layers in (1, 4):
            settings = {"num_hashes": num_hashes, "recompute_attention": recompute}
            model = build(attn_layers=["local", "lsh"] * layers, **settings).train()
            known = {p.data_ptr() for p in model.parameters()}
            saved = []

            def pack(tensor, known=known, saved=saved):
                saved.append(0 if tensor.data_ptr() in known else tensor.numel() * tensor.element_size())
                return tensor

            with (
                torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
                torch.autocast("cpu", torch.bfloat16, enabled=autocast),
            ):
                model(ids(), labels=ids())
            forward_only.append(sum(saved))
        # Of each pair of layers LSH attention's; local attention's too in half of the bytes, or beside several rounds.
        kept = 2 if autocast or num_hashes > 1 else 1
        outputs, round_weights = 2 * 64 * 16 * kept * (2 if autocast else 4), 2 * 2 * num_hashes * 64 * 4
        growth = 0 if recompute else 3 * (outputs + round_weights)
        assert forward_only[1] - forward_only[0] == growth
        assert forward_only[0] > 0

    @pytest.mark.parametrize(
        ("num_hashes", "autocast", "recompute", "times"),
        [(1, False, False, 2), (2, False, False, 1), (1, True, False, 1), (2, True, True, 2)],
    )
    def test_local_attention_is_not_computed_again_where_its_output_is_kept(
        self, num_hashes, autocast, recompute, times
    ):
        model = build(num_hashes=num_hashes, recompute_attention=recompute).train()
        calls = []
        for layer in model.reformer.encoder.layers[::2]:
            attention = layer.attention.self_attention
            attend = attention.attend
            attention.attend = lambda *args, attend=attend: (calls.append(1), attend(*args))[1]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(ids(), labels=ids()).loss
        loss.backward()
        assert len(calls) == 2 * times

    def test_layers_of_other_precisions_are_kept_beside_each_other(self):
        class InFloat32(torch.nn.Linear):
            def forward(self, hidden):
                with torch.autocast("cpu", enabled=False):
                    return super().forward(hidden.float())

        sides = []
        for recompute in (False, True):
            model = build(attn_layers=["lsh", "local", "lsh", "local"], recompute_attention=recompute).train()
            for name in ("query_key", "value"):
                getattr(model.reformer.encoder.layers[0].attention.self_attention, name).__class__ = InFloat32
            with torch.autocast("cpu", torch.bfloat16):
                sides.append(gradients(model, ids()))
        assert torch.equal(sides[0][0], sides[1][0])
        assert_same_gradients(sides[0][1], sides[1][1])

    def test_attention_kept_in_half_precision_gives_the_same_gradients(self):
        sides = []
        for recompute in (False, True):
            model = build(recompute_attention=recompute).train()
            torch.manual_seed(5)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(ids(), labels=ids()).loss
            loss.backward()
            sides.append((loss, torch.cat([p.grad.flatten() for p in model.parameters()])))
        (loss, kept), (again, recomputed) = sides
        assert torch.equal(loss, again)
        # A bf16 rounding may fall the other way where the recomputed stream differs in its last fp32 bit.
        assert (kept - recomputed).norm() <= 0.02 * recomputed.norm()

    def test_recomputed_attention_gives_the_same_gradients(self):
        (loss, kept), (again, recomputed) = (
            gradients(build(recompute_attention=choice), ids()) for choice in (False, True)
        )
        assert torch.equal(loss, again)
        assert_same_gradients(kept, recomputed)

    def test_norms_read_slices_that_lie_in_one_block(self):
        model = build().train()
        read = []
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0].is_contiguous()))
        gradients(model, ids(batch=1))
        # Those of the two branches of 4 layers, in the forward and again in the backward, and the final one.
        assert len(read) == 2 * 2 * 4 + 1
        assert all(read)

    def test_autograd_grad_reaches_a_layer(self):
        model = build(**QUIET).train()
        weight = model.reformer.encoder.layers[1].attention.self_attention.query_key.weight
        _, expected = gradients(model, ids())
        model.zero_grad()
        (gradient,) = torch.autograd.grad(model(ids(), labels=ids()).loss, weight)
        name = "reformer.encoder.layers.1.attention.self_attention.query_key.weight"
        assert torch.equal(gradient, expected[name])
        assert all(p.grad is None for p in model.parameters())

    def test_frozen_embeddings_leave_the_layers_their_gradients(self):
        model = build(**LARGE).train()
        _, expected = gradients(model, ids())
        model.zero_grad()
        for parameter in model.reformer.embeddings.parameters():
            parameter.requires_grad_(False)
        model(ids(), labels=ids()).loss.backward()
        for name, parameter in model.named_parameters():
            if "embeddings" in name:
                assert parameter.grad is None
            else:
                assert torch.allclose(parameter.grad, expected[name], atol=1e-7), name

    def test_frozen_layer_gets_no_gradient_and_passes_it_on(self):
        model = build(**QUIET).train()
        _, expected = gradients(model, ids())
        model.zero_grad()
        model.reformer.encoder.layers[1].requires_grad_(False)
        model(ids(), labels=ids()).loss.backward()
        for name, parameter in model.named_parameters():
            if "layers.1." in name:
                assert parameter.grad is None
            else:
                assert torch.allclose(parameter.grad, expected[name], atol=1e-7), name

    def test_one_forward_serves_several_backwards(self):
        model = build().train()
        _, expected = gradients(model, ids())
        model.zero_grad()
        torch.manual_seed(5)
        loss = model(ids(), labels=ids()).loss
        last = model.reformer.encoder.layers[-1].feed_forward.output.dense.weight
        # The first one ends in the last layer, in the middle of what a later one walks through.
        torch.autograd.grad(loss, last, retain_graph=True)
        loss.backward(retain_graph=True)
        loss.backward()
        assert_same_gradients({k: 2 * g for k, g in expected.items()}, {n: p.grad for n, p in model.named_parameters()})

    def test_two_forwards_before_one_backward(self):
        model = build().train()
        first, second = ids(), ids().flip(0)
        separate = [gradients(model, tokens, seed=seed)[1] for seed, tokens in ((1, first), (2, second))]
        model.zero_grad()
        torch.manual_seed(1)
        loss = model(first, labels=first).loss
        torch.manual_seed(2)
        loss = loss + model(second, labels=second).loss
        loss.backward()
        for name, parameter in model.named_parameters():
            assert torch.allclose(parameter.grad, separate[0][name] + separate[1][name], atol=1e-6), name

    def test_a_module_put_into_a_layer_may_draw_random_numbers(self):
        class Adapted(torch.nn.Module):
            def __init__(self, base):
                super().__init__()
                self.base = base
                self.down = torch.nn.Linear(base.in_features, 2, bias=False)
                self.up = torch.nn.Linear(2, base.out_features, bias=False)
                self.dropout = torch.nn.Dropout(0.5)

            def forward(self, x):
                return self.base(x) + self.up(self.down(self.dropout(x)))

        model = build(**QUIET).train()
        for layer in model.reformer.encoder.layers:
            layer.feed_forward.dense.dense = Adapted(layer.feed_forward.dense.dense)
            layer.attention.self_attention.value = Adapted(layer.attention.self_attention.value)
        loss, reversible = gradients(model, ids())
        plain_loss, plain = gradients(model, ids(), output_hidden_states=True)
        assert torch.equal(loss, plain_loss)
        assert_same_gradients(plain, reversible)
        torch.manual_seed(3)
        loss = model(ids(), labels=ids()).loss
        before = torch.get_rng_state()
        loss.backward()
        assert torch.equal(torch.get_rng_state(), before)

    def test_parameters_given_by_functional_call_get_the_gradients(self):
        model = build(**QUIET).train()
        other = {name: (1.3 * p.detach()).requires_grad_() for name, p in model.named_parameters()}
        loss = torch.func.functional_call(model, other, (), {"input_ids": ids(), "labels": ids()}).loss
        found = torch.autograd.grad(loss, list(other.values()))
        model.load_state_dict({name: p.detach() for name, p in other.items()})
        expected_loss, expected = gradients(model, ids())
        assert torch.equal(loss.detach(), expected_loss)
        assert_same_gradients(expected, dict(zip(other, found, strict=True)))

    def test_what_needs_a_gradient_is_decided_by_the_forward(self):
        model = build(**QUIET).train()
        _, expected = gradients(model, ids())
        model.zero_grad()
        attention = model.reformer.encoder.layers[0].attention.self_attention
        loss = model(ids(), labels=ids()).loss
        attention.query.weight.requires_grad_(False)
        loss.backward()
        name = "reformer.encoder.layers.0.attention.self_attention.key.weight"
        assert torch.allclose(attention.key.weight.grad, expected[name], atol=1e-7)

    def test_hooks_on_parameters_see_the_gradient_once(self):
        model = build(**QUIET).train()
        _, expected = gradients(model, ids())
        model.zero_grad()
        weight, calls = model.reformer.encoder.layers[1].attention.self_attention.value.weight, []

        def halve(gradient):
            calls.append(1)
            return gradient / 2

        weight.register_hook(halve)
        model(ids(), labels=ids()).loss.backward()
        assert len(calls) == 1
        name = "reformer.encoder.layers.1.attention.self_attention.value.weight"
        assert torch.allclose(weight.grad, expected[name] / 2, atol=1e-8)

    def test_masks_may_be_reused_before_the_backward(self):
        model = build(**QUIET).train()
        mask, head_mask = torch.ones(2, 64, dtype=torch.bool), torch.tensor([1.0, 0.5])
        mask[0, 50:] = False
        _, expected = gradients(model, ids(), attention_mask=mask.clone(), head_mask=head_mask.clone())
        model.zero_grad()
        loss = model(ids(), labels=ids(), attention_mask=mask, head_mask=head_mask).loss
        mask.fill_(True)
        head_mask.fill_(0.0)
        loss.backward()
        assert_same_gradients(expected, {name: p.grad for name, p in model.named_parameters()})

    def test_a_layer_in_evaluation_mode_has_no_dropout(self):
        model = build(hash_seed=0).train()
        model.reformer.encoder.eval()
        model.reformer.embeddings.eval()
        torch.manual_seed(0)
        with torch.no_grad():
            assert torch.equal(model(ids()).logits, model.eval()(ids()).logits)

    def test_backward_after_an_in_place_update_is_refused(self):
        model = build(**QUIET).train()
        loss = model(ids(), labels=ids()).loss
        with torch.no_grad():
            model.reformer.encoder.layers[0].feed_forward.dense.dense.weight.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_gradients_exist_in_evaluation_mode(self):
        model = build(**QUIET)
        _, training = gradients(model.train(), ids())
        _, evaluation = gradients(model.eval(), ids())
        assert_same_gradients(training, evaluation)

    def test_head_mask_can_have_a_gradient(self):
        model = build(**QUIET).train()
        head_mask = torch.ones(4, 2, requires_grad=True)
        model(ids(), labels=ids(), head_mask=head_mask).loss.backward()
        assert head_mask.grad.abs().min() > 0

    @pytest.mark.parametrize("settings", [QUIET, {"hash_seed": 0}], ids=["quiet", "dropout"])
    @pytest.mark.parametrize("std", [0.02, 0.4])
    def test_autocast_gradients_of_twelve_layers(self, std, settings):
        model = build(**{**settings, "attn_layers": ["local", "lsh"] * 6, "initializer_range": std}).train()

        def flat(autocast, **arguments):
            torch.manual_seed(5)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = model(ids(), labels=ids(), **arguments).loss
            model.zero_grad()
            loss.backward()
            return torch.cat([p.grad.flatten() for p in model.parameters()])

        exact, reversible, ordinary = flat(False), flat(True), flat(True, output_hidden_states=True)
        # A bf16 rounding may fall the other way where the recomputed stream differs in its last fp32 bit.
        assert (reversible - ordinary).norm() <= 0.02 * ordinary.norm()
        if settings is QUIET:
            # Large weights take bf16 itself farther from fp32, in any stack; recomputing adds nothing to that.
            limit = 0.02 * exact.norm() if std == 0.02 else 1.02 * (ordinary - exact).norm()
            assert (reversible - exact).norm() <= limit

    def test_bf16_gradients_are_near_fp32(self):
        model = build(**QUIET).train()
        _, exact = gradients(model, ids())
        half = copy.deepcopy(model).to(torch.bfloat16)
        _, rough = gradients(half, ids())
        flat, near = (torch.cat([g.float().flatten() for g in side.values()]) for side in (exact, rough))
        assert torch.nn.functional.cosine_similarity(flat, near, dim=0) > 0.98

    @pytest.mark.parametrize("training", [True, False])
    def test_hooks_on_branches_see_whole_calls(self, training):
        model, seen = build(**QUIET).train(training), []
        expected = gradients(model, ids())[1]
        layer = model.reformer.encoder.layers[1]
        for module in (layer.attention, layer.attention.self_attention, layer.feed_forward):
            module.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
        assert_same_gradients(expected, gradients(model, ids())[1])
        assert seen == [(2, 64, 16)] * 3

    def test_evaluation_without_gradients_is_the_same_and_leaves_its_input_alone(self):
        model = build(**QUIET).eval()
        embeds = torch.randn(2, 64, 16)
        before = embeds.clone()
        with torch.no_grad():
            lean = model(inputs_embeds=embeds).logits
            plain = model(inputs_embeds=embeds, output_hidden_states=True).logits
        assert torch.allclose(lean, plain, atol=1e-5)
        assert torch.equal(embeds, before)


def test_slices_of_half_precision_are_twice_as_long():
    x = torch.empty(2, 5000, 1)
    assert [part.start for _, part in token_slices(x)] == [0, 1024, 2048, 3072, 4096]
    with torch.autocast("cpu", torch.bfloat16):
        assert [part.start for _, part in token_slices(x)] == [0, 2048, 4096]
        assert [part.start for _, part in token_slices(x, 4000)] == [0, 4000]
