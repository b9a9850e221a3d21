"""What a Reformer promises beyond parity: gradients, randomness, precision, lengths and errors."""

import pytest
import torch
from small_reformer import LARGE, QUIET, assert_same_gradients, build, gradients, ids

from modelwright.core.errors import ConfigError, InputError
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import ReformerModel


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
        model = build(ReformerModel, **LARGE, num_hashes=hashes).eval().to(dtype)
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
        model = build(**LARGE).eval()
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

    @pytest.mark.parametrize("length", [9, 20, 63])
    def test_training_takes_any_length(self, length):
        model = build(**QUIET).train()
        whole = length + -length % 8
        padded = torch.nn.functional.pad(ids(2, length), (0, whole - length), value=9)
        mask = torch.zeros(2, whole).index_fill(1, torch.arange(length), 1.0)
        model.zero_grad()
        labels = padded.masked_fill(mask == 0, -100)
        model(padded, attention_mask=mask, labels=labels).loss.backward()
        by_hand = {name: p.grad.clone() for name, p in model.named_parameters()}
        _, found = gradients(model, ids(2, length))
        assert_same_gradients(by_hand, found)

    def test_batch_is_single(self):
        model = build(**QUIET).eval()
        with torch.no_grad():
            batch = model(ids(3)).logits
            for row in range(3):
                assert torch.allclose(model(ids(3)[row : row + 1]).logits[0], batch[row], atol=1e-5)

    def test_positions_with_padding(self):
        model = build(**LARGE).eval()
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
            # Of lengths that are no multiple of the chunks too.
            assert torch.allclose(whole(ids(2, 37)).logits, chunked(ids(2, 37)).logits, atol=1e-6)
        settings = {"max_new_tokens": 3, "do_sample": False}
        assert torch.equal(whole.generate(ids(1, 5), **settings), chunked.generate(ids(1, 5), **settings))


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
        model = build(**LARGE).train()
        three, four = (gradients(model, ids(), num_hashes=n)[0] for n in (3, 4))
        assert torch.isfinite(three)
        assert three != four
        assert gradients(build(**{**LARGE, "num_hashes": 4}).train(), ids())[0] == four

    def test_padding_to_a_whole_chunk_needs_no_positions(self):
        model = build(**QUIET, axial_pos_shape=[6, 10], max_position_embeddings=60).eval()
        assert model(ids(1, 58)).logits.shape == (1, 58, 50)
        assert model.generate(ids(1, 50), max_new_tokens=10, eos_token_id=None).shape == (1, 60)

    def test_generation_knows_the_real_number_of_positions(self):
        model = build(**QUIET, axial_pos_shape=[4, 4]).eval()
        with pytest.raises(InputError, match="sees at most 16 positions"):
            model.generate(ids(1, 10), max_new_tokens=10)


class TestErrors:
    def test_too_long(self):
        match = r"at most 64 tokens \(its number of position embeddings, axial_pos_shape \[8, 8\]\), got 72; cut the"
        for model in (build().eval(), build().train()):
            with pytest.raises(InputError, match=match):
                model(ids(2, 72), labels=ids(2, 72))
        with pytest.raises(InputError, match=r"at most 64 tokens .*, max_position_embeddings\), got 65"):
            build(axial_pos_embds=False).train()(ids(1, 65))

    def test_position_without_an_embedding(self):
        with pytest.raises(InputError, match=r"position_ids in 0\.\.63, got 64"):
            build().eval()(ids(1, 2), position_ids=torch.tensor([[0, 64]]))

    def test_both_kinds_of_input(self):
        with pytest.raises(InputError, match="either input_ids or inputs_embeds, got neither"):
            build()()

    def test_mask_shapes(self):
        with pytest.raises(InputError, match=r"attention_mask of shape \(2, 64\), got \(2, 63\)"):
            build()(ids(), attention_mask=torch.ones(2, 63))
        with pytest.raises(InputError, match=r"head_mask of shape \(2,\) or \(4, 2\), got \(3,\)"):
            build()(ids(), head_mask=torch.ones(3))

    def test_configurations_that_cannot_work(self):
        with pytest.raises(ConfigError, match="expected a config with is_decoder=True"):
            build(is_decoder=False)
        with pytest.raises(ConfigError, match="lsh_num_chunks_after=0 for causal language modelling, got 1"):
            build(lsh_num_chunks_after=1)
        with pytest.raises(ConfigError, match=r"add up to hidden_size 16, got \[4, 4\]"):
            build(axial_pos_embds_dim=[4, 4])
        for wrong in ([0, 8], [8.0, 8], []):
            with pytest.raises(
                ConfigError, match=r"axial_pos_shape: expected whole numbers of at least 1, one for each"
            ):
                build(axial_pos_shape=wrong)
        build(axial_pos_embds=False, axial_pos_shape=[], axial_pos_embds_dim=[])
        with pytest.raises(ConfigError, match=r"axial_pos_shape: expected a number for each axis, .* got 64"):
            build(axial_pos_shape=64)
        with pytest.raises(
            ConfigError, match=r"tie_word_embeddings=False, got True; the head reads both streams, 2 \*"
        ):
            build(tie_word_embeddings=True)
        with pytest.raises(ConfigError, match=r"n_layers: expected 2, the number of entries of attn_layers, got 3"):
            build(attn_layers=["local", "lsh"], n_layers=3)
        with pytest.raises(InputError, match=r"num_hashes: expected a positive whole number of hash rounds, got 2\.0"):
            build()(ids(), num_hashes=2.0)
        with pytest.raises(ConfigError, match=r"non-empty list of 'local' or 'lsh', got \['full'\]"):
            build(attn_layers=["full"])
        with pytest.raises(ConfigError, match=r"3 widths .*axial_pos_shape \[4, 4, 4\]\) that add up to"):
            build(axial_pos_shape=[4, 4, 4])
        for odd in (5, [2, 3], 0, [], "4"):
            with pytest.raises(ConfigError, match=r"num_buckets: expected an even number or a list of even factors"):
                build(num_buckets=odd)
        with pytest.raises(ConfigError, match=r"lsh_num_chunks_before: expected a whole number of at least 0, got -1"):
            build(lsh_num_chunks_before=-1)
        with pytest.raises(ConfigError, match=r"num_attention_heads: expected a whole number of at least 1, got 0"):
            build(num_attention_heads=0)
        with pytest.raises(ConfigError, match=r"hidden_size: expected a whole number of at least 1, got 'abc'"):
            build(hidden_size="abc")
        with pytest.raises(InputError, match="num_hashes: expected a positive whole number of hash rounds, got 0"):
            build()(ids(), num_hashes=0)


class TestAttentionMode:
    def test_exact_is_lsh_with_a_chunk_of_the_whole_sequence(self):
        exact = build(**QUIET, attention_mode="exact").train()
        whole = build(**QUIET, lsh_attn_chunk_length=64).train()
        assert exact.config.num_hashes == 2
        (loss, ours), (expected_loss, expected) = gradients(exact, ids()), gradients(whole, ids())
        assert torch.allclose(loss, expected_loss)
        assert_same_gradients(expected, ours, tolerance=1e-4)
        hashed, _ = gradients(build(**QUIET).train(), ids())
        assert not torch.allclose(hashed, loss)

    def test_auto_hashes_where_it_is_cheaper_and_lsh_is_the_default(self):
        settings = {**QUIET, "attn_layers": ["lsh"], "num_hashes": 1, "num_buckets": None}
        model = build(**settings, attention_mode="auto").train()
        model(ids(2, 32), labels=ids(2, 32))
        assert model.config.num_buckets is None
        model(ids(), labels=ids())
        assert model.config.num_buckets == 16
        assert ReformerConfig().attention_mode == "lsh"

    def test_unknown_mode(self):
        with pytest.raises(ConfigError, match=r"attention_mode: expected 'lsh' or 'exact' or 'auto', got 'full'"):
            build(attention_mode="full")
