"""A small BERT, trained on plain text to fill in masked words, saved as transformers saves models.

Run: python tests/studies/small_bert.py --text FILE --folder DIR [--steps 500] [--seed 0]
"""

import argparse
import random
from pathlib import Path

import torch

LAYERS, WIDTH, HEADS, PIECES, LENGTH, BATCH = 4, 128, 4, 3000, 32, 32
MASKED, LR = 0.15, 1e-3


def make_vocabulary(text: Path, folder: Path) -> None:
    """Word pieces of the text, in `folder/vocab.txt`."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train([str(text)], vocab_size=PIECES, show_progress=False)
    tokenizer.save_model(str(folder))


def train_bert(text: Path, folder: Path, steps: int = 500, seed: int = 0) -> None:
    """Train on runs of LENGTH word pieces and save model and tokenizer."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    torch.manual_seed(seed)
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    make_vocabulary(text, folder)
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    pieces = torch.tensor(tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"])
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=512,
    )
    model = BertForMaskedLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    for step in range(steps):
        starts = [rng.randrange(len(pieces) - LENGTH) for _ in range(BATCH)]
        rows = torch.stack([pieces[start : start + LENGTH] for start in starts])
        rows = torch.nn.functional.pad(torch.nn.functional.pad(rows, (1, 0), value=first), (0, 1), value=last)
        masked = torch.rand(rows.shape) < MASKED
        masked[:, [0, -1]] = False
        loss = model(input_ids=rows.masked_fill(masked, tokenizer.mask_token_id)).logits[masked]
        loss = torch.nn.functional.cross_entropy(loss, rows[masked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Parse the options and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    train_bert(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
