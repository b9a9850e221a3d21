"""Teach a Reformer a text by its characters, and let it write on."""

import torch
import modelwright as tr

TEXT = "the quick brown fox jumps over the lazy dog. " * 40


def encode(texts, pad_token_id=0):
    """Return ids and mask of bytes; id 0 pads, 1 ends, a byte x is x + 2."""
    length = max(len(text.encode()) for text in texts)
    ids = torch.full((len(texts), length), pad_token_id)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        data = torch.tensor(list(text.encode())) + 2
        ids[row, : len(data)], mask[row, : len(data)] = data, 1
    return ids, mask


def decode(ids):
    return ["".join(chr(max(each - 2, 32)) for each in row.tolist()) for row in ids]


def main(steps=200, window=48):
    torch.manual_seed(0)
    config = tr.ReformerConfig(
        vocab_size=258,
        hidden_size=32,
        attention_head_size=8,
        num_attention_heads=4,
        feed_forward_size=64,
        attn_layers=["local", "lsh"],
        axial_pos_shape=[8, 8],
        axial_pos_embds_dim=[8, 24],
        max_position_embeddings=64,
        local_attn_chunk_length=16,
        lsh_attn_chunk_length=16,
        num_buckets=4,
        num_hashes=2,
        is_decoder=True,
        hidden_dropout_prob=0.0,
        local_attention_probs_dropout_prob=0.0,
    )
    model = tr.ReformerModelWithLMHead(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    # In training, the length must be that of the grid of positions.
    ids, _ = encode([TEXT])
    model.train()
    for _ in range(steps):
        starts = torch.randint(0, ids.shape[1] - 64, (4,))
        batch = torch.stack([ids[0, start : start + 64] for start in starts.tolist()])
        loss = model(batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    prompt, mask = encode(["the quick brown "])
    written = model.generate(
        prompt, attention_mask=mask, max_length=window, do_sample=False, pad_token_id=0, eos_token_id=1
    )
    print(f"loss {loss.item():.3f}")
    print(decode(written)[0])
    return loss.item(), decode(written)[0]


if __name__ == "__main__":
    main()
