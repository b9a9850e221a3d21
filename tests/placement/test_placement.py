"""Device maps: what may be asked for, where every tensor then goes, and the document's example of T0pp."""

import pytest
import torch
from torch import nn

from modelwright import (
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    T5Config,
    T5ForConditionalGeneration,
)
from modelwright.core.errors import InputError
from modelwright.placement.devices import parse_limits
from modelwright.placement.placement import make_placement
from modelwright.placement.planner import plan_device_map, total_bytes

GIB = 1 << 30


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 10, bias=False)
        self.second = nn.Linear(10, 10, bias=False)


class Net(nn.Module):
    _no_split_modules = ["Block"]

    def __init__(self):
        super().__init__()
        with torch.device("meta"):
            self.words = nn.Embedding(10, 10)
            self.blocks = nn.ModuleList(Block() for _ in range(12))
            self.head = nn.Linear(10, 10, bias=False)
            self.norm = nn.BatchNorm1d(10)


def place(device_map, model=None, **options):
    return make_placement("X", model or Net(), device_map, **options)


@pytest.fixture(scope="module")
def t0pp():
    """T0pp's shapes: 11 billion parameters, an untied head, no memory."""
    config = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    return T5ForConditionalGeneration.from_config(config, device="meta")


def test_document_example(t0pp):
    limits = parse_limits("X", {0: "24GiB", 1: "16GiB", "cpu": "60GiB"})
    found = plan_device_map("X", t0pp, "auto", limits)
    ends = ["decoder.final_layer_norm", "decoder.dropout", "lm_head"]
    blocks = [f"decoder.block.{i}" for i in range(24)]
    assert list(found) == ["shared", "decoder.embed_tokens", "encoder", *blocks, *ends]
    assert list(dict.fromkeys(found.values())) == [0, 1, "cpu"]
    numbers = [{0: 0, 1: 1, "cpu": 2}[device] for device in found.values()]
    assert numbers == sorted(numbers)
    placement = make_placement("X", t0pp, "auto", max_memory=limits)
    sizes = dict.fromkeys([0, 1, "cpu"], 0)
    seen = set()
    for name, parameter in t0pp.named_parameters(remove_duplicate=False):
        if id(parameter) not in seen:
            sizes[placement.homes[name]] += parameter.nbytes
            seen.add(id(parameter))
    assert all(0 < sizes[device] <= limits[device] for device in sizes)
    assert sum(sizes.values()) == total_bytes(t0pp)


def test_custom_map_of_the_document(t0pp):
    custom = {"shared": 0, "encoder": 0, "decoder": 1, "lm_head": 1}
    tied = [["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]]
    placement = make_placement("X", t0pp, custom, tied=tied)
    assert placement.device_map == custom
    assert placement.main == 0
    homes = placement.homes
    assert homes["encoder.block.23.layer.0.SelfAttention.q.weight"] == 0
    assert homes["decoder.block.0.layer.0.SelfAttention.q.weight"] == 1
    assert homes["lm_head.weight"] == 1
    # One parameter: it stays one, and the decoder's table works where it is.
    assert homes["shared.weight"] == homes["decoder.embed_tokens.weight"] == 0
    assert placement.modules["decoder.embed_tokens"] == 0
    assert placement.modules["decoder.block"] == 1
    assert "decoder" not in placement.modules


def test_strategies_over_two_accelerators():
    net = Net()
    size = total_bytes(net)
    limits = {0: size, 1: size, "cpu": size}

    def shares(strategy):
        homes = make_placement("X", net, strategy, max_memory=limits).homes
        total = {0: 0, 1: 0}
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            total[homes[name]] += tensor.nbytes
        return total

    even, low, first = (shares(strategy) for strategy in ("balanced", "balanced_low_0", "sequential"))
    assert shares("auto") == even
    assert 0.35 < even[0] / size < 0.65
    assert low[0] < even[0]
    assert first == {0: size, 1: 0}


def test_longest_dotted_prefix_counts():
    placement = place({"": 0, "blocks.1": 1})
    homes = placement.homes
    assert homes["blocks.1.first.weight"] == 1
    assert homes["blocks.10.first.weight"] == homes["blocks.11.first.weight"] == 0
    assert placement.modules["blocks.1"] == 1
    assert placement.modules["blocks.10"] == 0


@pytest.mark.parametrize(
    ("device_map", "message"),
    [
        ({"words": 0, "blocks": 1, "norm": 0}, "got none for head.weight. Add"),
        ({"words": 0, "blocks.1": 1}, r"got none for blocks.0.first.weight, .* and \d+ more"),
        ({"": 0, "block": 1}, "names 'block', which is no module of Net. Did you mean 'blocks'?"),
        ({"": 0, "blocks.1.first": 1}, "keeps 'blocks.1' whole, got 1 for 'blocks.1.first.weight' and 0 for"),
        ({"": "gpu"}, r"device_map\[''\]: expected device_map to be None, a device"),
    ],
)
def test_maps_that_cannot_be(device_map, message):
    with pytest.raises(InputError, match=message):
        place(device_map)


@pytest.mark.parametrize(
    ("max_memory", "message"),
    [
        ({"cpu": "2 giraffes"}, "max_memory\\['cpu'\\]: expected a number of bytes or text"),
        ({"cuda:x": 5}, "max_memory: expected device_map to be"),
        ({"xpu": 5}, "expected the keys of max_memory to be numbers"),
        ([5], "expected max_memory to be"),
        ({}, "expected max_memory to be"),
    ],
)
def test_limits_that_cannot_be(max_memory, message):
    with pytest.raises(InputError, match=message):
        place("auto", max_memory=max_memory)


def test_limits_are_for_strategies():
    with pytest.raises(InputError, match="max_memory is for device_map='auto' and the other strategies"):
        place({"": 0}, max_memory={"cpu": 5})
    assert parse_limits("X", {"disk": "1GB", "cpu": "2GiB", "cuda:1": 5, 0: 7}) == {
        0: 7,
        1: 5,
        "cpu": 2 * GIB,
        "disk": 10**9,
    }


def test_what_fits_on_the_first_device_is_there_whole():
    net = Net()
    assert place("auto", net, max_memory={"cpu": total_bytes(net)}).device_map == {"": "cpu"}
    assert place("auto", net, max_memory={0: total_bytes(net), "cpu": 10**9}).device_map == {"": 0}
    assert "disk" in place("auto", net, max_memory={"cpu": total_bytes(net) - 1}).homes.values()


def test_a_class_that_does_not_say_what_stays_whole_is_not_split():
    net = Net()
    net._no_split_modules = None
    with pytest.raises(InputError, match=r"has to split Net, .* \(_no_split_modules\)"):
        place("auto", net, max_memory={"cpu": 100})
    assert place({"": "cpu", "head": "disk"}, net).homes["head.weight"] == "disk"


def test_tied_parameters_stay_together():
    tied = [["words.weight", "head.weight"]]
    assert place({"": 1, "words": 0, "head": 1}, tied=tied).homes["head.weight"] == 0
    assert place({"": "disk", "head": "cpu"}, tied=tied).homes["words.weight"] == "cpu"


def test_buffers_of_what_is_offloaded():
    assert place({"": "cpu", "norm": "disk"}).homes["norm.running_mean"] == "cpu"
    assert place({"": "cpu", "norm": "disk"}).homes["norm.weight"] == "disk"
    assert place({"": "cpu", "norm": "disk"}, offload_buffers=True).homes["norm.running_mean"] == "disk"
    assert place({"": "cpu", "norm": 0}).homes["norm.running_mean"] == 0


def test_blocks_that_share_weights_and_do_not_fit():
    sizes = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2}
    part = BertConfig(**sizes, num_attention_heads=4, max_position_embeddings=8)
    pair = EncoderDecoderConfig.from_encoder_decoder_configs(part, part, tie_encoder_decoder=True)
    model = EncoderDecoderModel(pair)
    with pytest.raises(
        InputError, match=r"^X: device_map='auto' found no place within max_memory for the blocks of Enc"
    ):
        plan_device_map("X", model, "auto", {0: total_bytes(model) // 2, "cpu": GIB})
