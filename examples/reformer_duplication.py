"""Teach a Reformer with LSH attention the duplication task of its paper: to repeat what it has read.

    python examples/reformer_duplication.py [STEPS]

A sequence is 0w0w: a random word of symbols, twice, each after a zero (Kitaev et al. 2020, section 5). The second word
can be foretold only by a token that finds one particular token of the first, half a sequence behind it: the hash must
learn to bring the two into one bucket. The model is one layer that hashes twice; hashing more often afterwards makes it
more exact, as in the paper's table 2. It is shorter than the paper's (256 tokens instead of 1,024): for 200 steps
nothing seems to happen, then the pairs fall into their buckets. On two cores 600 steps took 20 s and ended at 87.4 %,
99.5 %, 99.96 % and 100 % with 1, 2, 4 and 8 hashes.
"""

import sys
import time

import torch

from modelwright import ReformerConfig, ReformerModelWithLMHead

SYMBOLS, HALF, BATCH = 63, 128, 16  # a half is a zero and 127 symbols
EVALUATIONS = (1, 2, 4, 8)


def make_model() -> ReformerModelWithLMHead:
    """Return one layer of LSH attention over 16 chunks of 16 tokens, with 32 buckets."""
    config = ReformerConfig(
        attn_layers=["lsh"],
        attention_head_size=32,
        axial_pos_embds=False,
        feed_forward_size=128,
        hidden_dropout_prob=0.0,
        hidden_size=64,
        initializer_range=0.1,
        is_decoder=True,
        lsh_attn_chunk_length=16,
        max_position_embeddings=2 * HALF,
        num_attention_heads=2,
        num_hashes=2,
        pad_token_id=None,  # zero is a symbol here
        vocab_size=SYMBOLS + 1,
    )
    return ReformerModelWithLMHead(config)


def draw(rows: int, generator: torch.Generator) -> torch.Tensor:
    """Return sequences 0w0w."""
    words = torch.randint(1, SYMBOLS + 1, (rows, HALF - 1), generator=generator)
    half = torch.cat([torch.zeros(rows, 1, dtype=torch.long), words], dim=1)
    return torch.cat([half, half], dim=1)


def of_second_word(tokens: torch.Tensor) -> torch.Tensor:
    """Return labels: the second word only, for the first is random."""
    return tokens.clone().index_fill_(1, torch.arange(HALF + 1), -100)


@torch.no_grad()
def accuracy(model: ReformerModelWithLMHead, num_hashes: int, rows: int = 64) -> float:
    """Return the fraction of the symbols of new second words that the model foretells with so many hash rounds."""
    model.eval()
    tokens = draw(rows, torch.Generator().manual_seed(99))
    scores = model(tokens, num_hashes=num_hashes, use_cache=False).logits
    model.train()
    return (scores[:, HALF:-1].argmax(dim=-1) == tokens[:, HALF + 1 :]).float().mean().item()


def main(steps: int = 600) -> dict[int, float]:
    """Train, and return the accuracy for each number of hash rounds."""
    torch.manual_seed(0)
    model, generator = make_model().train(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps, pct_start=0.1)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        tokens = draw(BATCH, generator)
        loss = model(tokens, labels=of_second_word(tokens)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            right, seconds = accuracy(model, 8), time.perf_counter() - start
            print(f"step {step:4}: loss {loss.item():.3f} nats, {right:.1%} right, {seconds:.0f} s", flush=True)
    found = {hashes: accuracy(model, hashes, rows=256) for hashes in EVALUATIONS}
    print("  ".join(f"{hashes} hashes: {right:.2%}" for hashes, right in found.items()))
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
