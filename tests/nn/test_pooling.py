from types import SimpleNamespace

import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.nn.pooling import PoolerAnswerClass, PoolerEndLogits, PoolerStartLogits

CONFIG = SimpleNamespace(hidden_size=4, layer_norm_eps=1e-12)
HIDDEN = torch.randn(2, 5, 4)
MASK = torch.tensor([[0, 0, 1, 1, 0], [1, 0, 0, 0, 0]])


def test_start_and_mask():
    pooler = PoolerStartLogits(CONFIG)
    plain, masked = pooler(HIDDEN), pooler(HIDDEN, p_mask=MASK)
    assert torch.equal(masked[MASK == 0], plain[MASK == 0])
    assert not masked.softmax(-1)[MASK == 1].any()
    half = PoolerStartLogits(CONFIG, dtype=torch.float16)(HIDDEN.half(), p_mask=MASK)
    assert half.isfinite().all()


def test_positions_are_states():
    positions = torch.tensor([1, 3])
    states = torch.stack([HIDDEN[0, 1], HIDDEN[1, 3]])
    end, answer = PoolerEndLogits(CONFIG), PoolerAnswerClass(CONFIG)
    wide = states[:, None].expand_as(HIDDEN)
    assert torch.equal(end(HIDDEN, start_positions=positions), end(HIDDEN, start_states=wide))
    last = torch.tensor([4, 4])
    by_state = answer(HIDDEN, start_states=states)
    assert torch.equal(answer(HIDDEN, start_positions=positions, cls_index=last), by_state)
    assert by_state.shape == (2,)


def test_bad_input():
    for pooler in (PoolerEndLogits(CONFIG), PoolerAnswerClass(CONFIG)):
        with pytest.raises(InputError, match="expected start_states or start_positions, got neither"):
            pooler(HIDDEN)
        with pytest.raises(InputError, match=r"one for each of 2 sequences, got shape \(3,\)"):
            pooler(HIDDEN, start_positions=torch.tensor([0, 1, 2]))
