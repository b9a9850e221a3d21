"""Teach a Reformer with LSH attention the duplication task of its paper: to repeat what it has read.

    python examples/reformer_duplication.py [STEPS]

A sequence is 0w0w: a random word of symbols, twice, each after a zero (Kitaev et al. 2020, section 5). The second word
can be foretold only by a token that finds one particular token of the first, far behind it: the buckets must bring the
two together. The model is one LSH layer.
"""

import sys
import time

import torch

from modelwright import ReformerConfig, ReformerModelWithLMHead

SYMBOLS, WORD = 32, 63  # with its zero, a word is 64 tokens
LENGTH, BATCH = 2 * (WORD + 1), 32
EVALUATIONS = (1, 2, 4, 8)


def make_model(num_hashes: int = 4) -> ReformerModelWithLMHead:
    """Return one layer of LSH attention: 8 chunks of 16 tokens, 16 buckets."""
    return ReformerModelWithLMHead(
        ReformerConfig(
            attn_layers=["lsh"],
            attention_head_size=32,
            num_attention_heads=4,
            hidden_size=128,
            feed_forward_size=256,
            axial_pos_embds=False,
            max_position_embeddings=LENGTH,
            lsh_attn_chunk_length=16,
            num_buckets=16,
            num_hashes=num_hashes,
            vocab_size=SYMBOLS + 1,
            is_decoder=True,
            pad_token_id=None,  # zero is a symbol here
            hidden_dropout_prob=0.0,
            initializer_range=0.1,
        )
    )


def batch(rows: int, generator: torch.Generator) -> torch.Tensor:
    """Return sequences 0w0w."""
    words = torch.randint(1, SYMBOLS + 1, (rows, WORD), generator=generator)
    half = torch.cat([torch.zeros(rows, 1, dtype=torch.long), words], dim=1)
    return torch.cat([half, half], dim=1)


def of_second_word(tokens: torch.Tensor) -> torch.Tensor:
    """Return labels: the second word only, for the first is random."""
    return tokens.clone().index_fill_(1, torch.arange(WORD + 2), -100)


@torch.no_grad()
def accuracy(model: ReformerModelWithLMHead, num_hashes: int, rows: int = 64) -> float:
    """Return the fraction of new second words' symbols that the model foretells with so many hash rounds."""
    model.eval()
    tokens = batch(rows, torch.Generator().manual_seed(99))
    found = model(tokens, num_hashes=num_hashes, use_cache=False).logits[:, WORD + 1 : -1].argmax(dim=-1)
    model.train()
    return (found == tokens[:, WORD + 2 :]).float().mean().item()


def main(steps: int = 1500) -> dict[int, float]:
    """Train, and return the accuracy for each number of hash rounds."""
    torch.manual_seed(0)
    model, generator = make_model().train(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        tokens = batch(BATCH, generator)
        loss = model(tokens, labels=of_second_word(tokens)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            seconds = time.perf_counter() - start
            print(
                f"step {step:5}: loss {loss.item():.3f} nats, {accuracy(model, 8):.1%} right, {seconds:.0f} s",
                flush=True,
            )
    found = {hashes: accuracy(model, hashes, rows=256) for hashes in EVALUATIONS}
    print("  ".join(f"{hashes} hashes: {right:.2%}" for hashes, right in found.items()))
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
