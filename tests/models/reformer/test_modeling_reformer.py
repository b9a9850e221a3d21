"""What a Reformer promises beyond parity: gradients, randomness, precision, lengths and errors."""

import copy

import pytest
import torch

from modelwright.core.errors import ConfigError, InputError
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import ReformerModel, ReformerModelWithLMHead

SMALL = {
    "attention_head_size": 8,
    "attn_layers": ["local", "lsh", "local", "lsh"],
    "axial_pos_embds_dim": [4, 12],
    "axial_pos_shape": [8, 8],
    "feed_forward_size": 32,
    "hidden_dropout_prob": 0.2,
    "hidden_size": 16,
    "initializer_range": 0.2,
    "is_decoder": True,
    "local_attention_probs_dropout_prob": 0.1,
    "local_attn_chunk_length": 8,
    "lsh_attention_probs_dropout_prob": 0.1,
    "lsh_attn_chunk_length": 8,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_buckets": 4,
    "num_hashes": 2,
    "vocab_size": 50,
}
QUIET = {
    "hidden_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
    "lsh_attention_probs_dropout_prob": 0.0,
    "hash_seed": 0,
}


def build(cls=ReformerModelWithLMHead, **changes):
    torch.manual_seed(0)
    return cls(ReformerConfig(**copy.deepcopy({**SMALL, **changes})))


def ids(batch=2, length=64):
    return torch.randint(1, 50, (batch, length), generator=torch.Generator().manual_seed(1))


def gradients(model, tokens, seed=5, **arguments):
    torch.manual_seed(seed)
    model.zero_grad()
    loss = model(tokens, labels=tokens, **arguments).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same_gradients(left, right, tolerance=1e-5):
    for name, gradient in left.items():
        assert (gradient - right[name]).abs().max() <= tolerance * (gradient.abs().max() + 1e-8), name


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

    @pytest.mark.parametrize("recompute", [True, False])
    def test_saved_bytes_grow_by_lsh_attentions_output_at_most(self, recompute):
        forward_only = []
        for layers in (1, 4):
            model = build(attn_layers=["local", "lsh"] * layers, recompute_attention=recompute).train()
            known = {p.data_ptr() for p in model.parameters()}
            saved = []

            def pack(tensor, known=known, saved=saved):
                saved.append(0 if tensor.data_ptr() in known else tensor.numel() * tensor.element_size())
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                model(ids(), labels=ids())
            forward_only.append(sum(saved))
        outputs, round_weights = 2 * 2 * 64 * 16 * 4, 2 * 2 * 2 * 64 * 4
        growth = 0 if recompute else 3 * (outputs // 2 + round_weights)
        assert forward_only[1] - forward_only[0] == growth
        assert forward_only[0] > 0

    def test_recomputed_attention_gives_the_same_gradients(self):
        (loss, kept), (again, recomputed) = (gradients(build(recompute_attention=choice), ids()) for choice in (False, True))
        assert torch.equal(loss, again)
        assert_same_gradients(kept, recomputed)

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
        model = build(**QUIET).train()
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

    def test_under_autocast_the_recomputation_is_the_same_function(self):
        model = build(attn_layers=["local", "lsh"] * 6, hash_seed=0, initializer_range=0.1).train()
        results = []
        for arguments in ({}, {"output_hidden_states": True}):
            torch.manual_seed(5)
            model.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(ids(), labels=ids(), **arguments).loss
            loss.backward()
            results.append({name: p.grad.clone() for name, p in model.named_parameters()})
        # A bf16 rounding may fall the other way where the recomputed stream differs in its last fp32 bit.
        for name, gradient in results[1].items():
            assert (gradient - results[0][name]).norm() <= 0.05 * gradient.norm(), name

    def test_bf16_gradients_are_near_fp32(self):
        model = build(**QUIET).train()
        _, exact = gradients(model, ids())
        half = copy.deepcopy(model).to(torch.bfloat16)
        _, rough = gradients(half, ids())
        flat, near = (torch.cat([g.float().flatten() for g in side.values()]) for side in (exact, rough))
        assert torch.nn.functional.cosine_similarity(flat, near, dim=0) > 0.98


class TestRandomness:
    def test_same_seed_same_losses(self):
        curves = []
        for _ in range(2):
            model = build().train()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            torch.manual_seed(9)
            losses = []
            for _ in range(3):
                optimizer.zero_grad()
                loss = model(ids(), labels=ids()).loss
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            curves.append(losses)
        assert curves[0] == curves[1]
        assert len(set(curves[0])) == 3

    def test_a_fixed_hash_seed_leaves_the_global_stream_alone(self):
        model = build(hash_seed=3).eval()
        torch.manual_seed(11)
        before = torch.get_rng_state()
        model(ids())
        assert torch.equal(torch.get_rng_state(), before)

    def test_training_moves_the_global_stream_and_never_reseeds_it(self):
        model = build(hash_seed=3).train()
        draws = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            model(ids(), labels=ids()).loss.backward()
            draws.append(torch.rand(()))
        assert draws[0] != draws[1]

    def test_without_a_hash_seed_the_rotations_follow_the_users_seed(self):
        model = build(num_hashes=1).eval()

        def run(seed):
            torch.manual_seed(seed)
            with torch.no_grad():
                return model(ids()).logits

        assert torch.equal(run(1), run(1))
        assert not torch.equal(run(1), run(2))


class TestPrecision:
    @pytest.mark.parametrize("hashes", [2, 4, 8])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_a_token_that_sees_only_itself_keeps_its_value(self, hashes, dtype):
        # Position 0 of a causal model: the rounds' weights must add up to 1, whatever the dtype.
        model = build(ReformerModel, **QUIET, num_hashes=hashes).eval().to(dtype)
        attention = model.encoder.layers[1].attention.self_attention
        seen = {}
        attention.register_forward_hook(lambda module, args, out: seen.update(x=args[0], out=out[0]))
        with torch.no_grad():
            model(ids())
            value = attention.value(seen["x"])
        assert torch.allclose(
            seen["out"][:, 0].float(), value[:, 0].float(), rtol=1e-2 if dtype != torch.float32 else 1e-6
        )

    def test_half_and_back_has_no_nan(self):
        model = build(**QUIET).eval()
        mask = torch.ones(2, 64)
        mask[0, 40:] = 0
        with torch.no_grad():
            expected = model(ids(), attention_mask=mask).logits
            back = model.half().float()(ids(), attention_mask=mask).logits
        assert torch.isfinite(back).all()
        # The median, for a rounded weight may move a token to another bucket.
        assert (back - expected).abs().median() < 0.01 * expected.abs().max()

    def test_streams_are_fp32_in_a_half_precision_model(self):
        model = build(**QUIET).eval().to(torch.bfloat16)
        seen = []
        model.reformer.encoder.layers[0].feed_forward.register_forward_hook(lambda m, args, out: seen.append(args[0]))
        with torch.no_grad():
            assert model(ids()).logits.dtype == torch.bfloat16
        assert seen[0].dtype == torch.float32

    def test_double_precision_is_double(self):
        model = build(**QUIET, attn_layers=["local", "lsh"]).double().train()
        _, found = gradients(model, ids())
        weight = model.reformer.encoder.layers[0].attention.self_attention.value.weight
        direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        losses = []
        with torch.no_grad():
            for sign in (1, -2):
                weight.add_(direction, alpha=sign * 1e-6)
                losses.append(model(ids(), labels=ids()).loss)
        numeric = (losses[0] - losses[1]) / 2e-6
        analytic = (found["reformer.encoder.layers.0.attention.self_attention.value.weight"] * direction).sum()
        assert abs(numeric - analytic) < 1e-6 * abs(analytic)


class TestLengths:
    @pytest.mark.parametrize("length", [9, 20, 63])
    def test_padding_by_hand_changes_nothing(self, length):
        model = build(**QUIET).eval()
        tokens = ids(2, length)
        whole = length + -length % 8
        padded = torch.nn.functional.pad(tokens, (0, whole - length), value=9)
        mask = torch.zeros(2, whole).index_fill(1, torch.arange(length), 1.0)
        with torch.no_grad():
            short, long = model(tokens).logits, model(padded, attention_mask=mask).logits[:, :length]
        assert torch.allclose(short, long, atol=1e-5)

    def test_batch_is_single(self):
        model = build(**QUIET).eval()
        with torch.no_grad():
            batch = model(ids(3)).logits
            for row in range(3):
                assert torch.allclose(model(ids(3)[row : row + 1]).logits[0], batch[row], atol=1e-5)

    def test_positions_with_padding(self):
        model = build(**QUIET).eval()
        tokens = ids(2, 13)
        with torch.no_grad():
            given = model(tokens, position_ids=torch.arange(13).expand(2, 13)).logits
            assert torch.equal(given, model(tokens).logits)
            assert not torch.equal(given, model(tokens, position_ids=torch.arange(13).flip(0).expand(2, 13)).logits)

    def test_embeddings_with_padding(self):
        model = build(**QUIET).eval()
        tokens = ids(2, 13)
        with torch.no_grad():
            embeds = model.get_input_embeddings()(tokens)
            assert torch.equal(model(inputs_embeds=embeds).logits, model(tokens).logits)

    def test_axial_training_takes_fewer_tokens_than_positions(self):
        model = build(**QUIET).train()
        assert torch.isfinite(gradients(model, ids(2, 16))[0])

    def test_future_tokens_do_not_reach_the_past(self):
        # Hashing sorts by content, so which past a token sees may depend on the future's buckets; with exact attention
        # over one chunk there is no such freedom.
        model = build(**QUIET, lsh_attn_chunk_length=64, local_attn_chunk_length=64).eval()
        changed = ids()
        changed[:, 40:] = 7
        with torch.no_grad():
            assert torch.allclose(model(ids()).logits[:, :40], model(changed).logits[:, :40], atol=1e-6)

    def test_chunked_feed_forward_and_head_change_nothing(self):
        whole, chunked = build(**QUIET).eval(), build(**QUIET, chunk_size_feed_forward=4, chunk_size_lm_head=16).eval()
        with torch.no_grad():
            assert torch.allclose(whole(ids()).logits, chunked(ids()).logits, atol=1e-6)


class TestOutputEmbeddings:
    def test_the_bias_follows_the_size(self):
        model = build(**QUIET).eval()
        torch.nn.init.ones_(model.lm_head.bias)
        model.set_output_embeddings(torch.nn.Linear(32, 53, bias=False))
        assert model(ids()).logits.shape == (2, 64, 53)
        assert model.lm_head.bias.tolist() == [1.0] * 50 + [0.0] * 3
        model.set_output_embeddings(torch.nn.Linear(32, 40, bias=False))
        assert model(ids()).logits.shape == (2, 64, 40)


class TestNumberOfBuckets:
    def test_training_writes_the_choice_and_evaluation_does_not(self):
        model = build(num_buckets=None).eval()
        with torch.no_grad():
            model(ids(1, 5))
            model(ids(1, 30))
        assert model.config.num_buckets is None
        model.train()(ids(), labels=ids())
        assert model.config.num_buckets == 16

    def test_hash_rounds_can_be_overridden_in_training(self):
        model = build(**QUIET).train()
        three, four = (gradients(model, ids(), num_hashes=n)[0] for n in (3, 4))
        assert torch.isfinite(three)
        assert three != four
        assert gradients(build(**{**QUIET, "num_hashes": 4}).train(), ids())[0] == four

    def test_padding_to_a_whole_chunk_needs_no_positions(self):
        model = build(**QUIET, axial_pos_shape=[6, 10], max_position_embeddings=60).eval()
        assert model(ids(1, 58)).logits.shape == (1, 58, 50)
        assert model.generate(ids(1, 50), max_new_tokens=10, eos_token_id=None).shape == (1, 60)

    def test_generation_knows_the_real_number_of_positions(self):
        model = build(**QUIET, axial_pos_shape=[4, 4]).eval()
        with pytest.raises(InputError, match="sees at most 16 positions"):
            model.generate(ids(1, 10), max_new_tokens=10)


class TestErrors:
    def test_training_length(self):
        with pytest.raises(InputError, match=r"multiple of 8 .* got 20; pad it with 4 masked tokens"):
            build().train()(ids(2, 20))

    def test_too_long(self):
        with pytest.raises(InputError, match=r"at most 64 tokens .* got 72; cut the sequence"):
            build().eval()(ids(2, 72))

    def test_position_without_an_embedding(self):
        with pytest.raises(InputError, match=r"position_ids in 0\.\.63, got 64"):
            build().eval()(ids(1, 2), position_ids=torch.tensor([[0, 64]]))

    def test_both_kinds_of_input(self):
        with pytest.raises(InputError, match="either input_ids or inputs_embeds, got both or neither"):
            build()()

    def test_mask_shapes(self):
        with pytest.raises(InputError, match=r"attention_mask of shape \(2, 64\), got \(2, 63\)"):
            build()(ids(), attention_mask=torch.ones(2, 63))
        with pytest.raises(InputError, match=r"head_mask of shape \(2,\) or \(4, 2\), got \(3,\)"):
            build()(ids(), head_mask=torch.ones(3))

    def test_caching_says_what_to_do(self):
        with pytest.raises(NotImplementedError, match="cached decoding is not built yet; leave use_cache"):
            build()(ids(), use_cache=True)

    def test_configurations_that_cannot_work(self):
        with pytest.raises(ConfigError, match="expected a config with is_decoder=True"):
            build(is_decoder=False)
        with pytest.raises(ConfigError, match="lsh_num_chunks_after=0 for causal language modelling, got 1"):
            build(lsh_num_chunks_after=1)
        with pytest.raises(ConfigError, match=r"add up to hidden_size 16, got \[4, 4\]"):
            build(axial_pos_embds_dim=[4, 4])
        with pytest.raises(ConfigError, match=r"non-empty list of 'local' or 'lsh', got \['full'\]"):
            build(attn_layers=["full"])
        with pytest.raises(ConfigError, match=r"num_attention_heads: expected a whole number of at least 1, got 0"):
            build(num_attention_heads=0)
        with pytest.raises(ConfigError, match=r"hidden_size: expected a whole number of at least 1, got 'abc'"):
            build(hidden_size="abc")
        with pytest.raises(InputError, match="num_hashes: expected a positive number of hash rounds, got 0"):
            build()(ids(), num_hashes=0)
