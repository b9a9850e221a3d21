"""SQuADHead: the three poolers of `modelwright.nn.pooling` as one head, with its losses and its search.

Shapes: B sequences, T tokens, D hidden size, K = `start_n_top` starts, M = `end_n_top` ends of each.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.core.errors import InputError
from modelwright.nn.pooling import Device, PoolerAnswerClass, PoolerEndLogits, PoolerStartLogits
from modelwright.outputs.base import ModelOutput


@dataclass
class SquadHeadOutput(ModelOutput):
    """What `SQuADHead` returns: the loss with labels, else the best starts (B, K), their ends (B, M * K), `cls_logits`.

    `*_log_probs` hold probabilities, as upstream's do in spite of their names.
    """

    loss: Tensor | None = None
    start_top_log_probs: Tensor | None = None
    start_top_index: Tensor | None = None
    end_top_log_probs: Tensor | None = None
    end_top_index: Tensor | None = None
    cls_logits: Tensor | None = None


class SQuADHead(nn.Module):
    """The head of XLNet for SQuAD 2.0: starts, ends given a start, and whether there is an answer at all.

    Reads `start_n_top`, `end_n_top`, `hidden_size` and `layer_norm_eps` from the config. Source: Yang et al. 2019.
    """

    def __init__(self, config: Any, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.start_n_top: int = config.start_n_top
        self.end_n_top: int = config.end_n_top
        self.start_logits = PoolerStartLogits(config, device=device, dtype=dtype)
        self.end_logits = PoolerEndLogits(config, device=device, dtype=dtype)
        self.answer_class = PoolerAnswerClass(config, device=device, dtype=dtype)

    def forward(
        self,
        hidden_states: Tensor,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        cls_index: Tensor | None = None,
        is_impossible: Tensor | None = None,
        p_mask: Tensor | None = None,
        return_dict: bool = False,
    ) -> SquadHeadOutput | tuple[Tensor, ...]:
        """Return the loss if both positions (B) are given, else the search's result; a tuple unless `return_dict`.

        With `cls_index` and `is_impossible` (B) half the loss of the answer's existence is added. `p_mask` (B, T) is 1
        at tokens that cannot be in an answer. Raises InputError for fewer tokens than the search keeps.
        """
        starts = self.start_logits(hidden_states, p_mask=p_mask)
        if start_positions is not None and end_positions is not None:
            labels = [_flat(each) for each in (start_positions, end_positions, cls_index, is_impossible)]
            result = SquadHeadOutput(loss=self._loss(hidden_states, starts, labels, p_mask))
        else:
            result = self._search(hidden_states, starts, _flat(cls_index), p_mask)
        return result if return_dict else result.to_tuple()

    def _loss(
        self, hidden_states: Tensor, starts: Tensor, labels: list[Tensor | None], p_mask: Tensor | None
    ) -> Tensor:
        start_positions, end_positions, cls_index, is_impossible = labels
        assert start_positions is not None
        assert end_positions is not None
        ends = self.end_logits(hidden_states, start_positions=start_positions, p_mask=p_mask)
        loss = (F.cross_entropy(starts.float(), start_positions) + F.cross_entropy(ends.float(), end_positions)) / 2
        if cls_index is not None and is_impossible is not None:
            scores = self.answer_class(hidden_states, start_positions=start_positions, cls_index=cls_index)
            loss = loss + 0.5 * F.binary_cross_entropy_with_logits(scores.float(), is_impossible.float())
        return loss

    def _search(
        self, hidden_states: Tensor, starts: Tensor, cls_index: Tensor | None, p_mask: Tensor | None
    ) -> SquadHeadOutput:
        B, T, D = hidden_states.shape
        if max(self.start_n_top, self.end_n_top) > T:
            raise InputError(
                f"SQuADHead: expected at least as many tokens as start_n_top={self.start_n_top} and "
                f"end_n_top={self.end_n_top}, got {T}"
            )
        start_probs = starts.softmax(dim=-1)
        top_starts, start_index = start_probs.topk(self.start_n_top, dim=-1)
        start_states = hidden_states.gather(1, start_index[:, :, None].expand(-1, -1, D))
        wide = (B, T, self.start_n_top, D)
        end_probs = self.end_logits(
            hidden_states[:, :, None].expand(wide),
            start_states=start_states[:, None].expand(wide),
            p_mask=None if p_mask is None else p_mask[:, :, None].expand(wide[:3]),
        ).softmax(dim=1)
        top_ends, end_index = end_probs.topk(self.end_n_top, dim=1)
        expected_start = torch.einsum("btd,bt->bd", hidden_states, start_probs)
        return SquadHeadOutput(
            start_top_log_probs=top_starts,
            start_top_index=start_index,
            end_top_log_probs=top_ends.flatten(1),
            end_top_index=end_index.flatten(1),
            cls_logits=self.answer_class(hidden_states, start_states=expected_start, cls_index=cls_index),
        )


def _flat(labels: Tensor | None) -> Tensor | None:
    """(B, 1) -> (B)."""
    return labels.squeeze(-1) if labels is not None and labels.dim() > 1 else labels
