"""Small language models that differ in their seeds, some of them in width too, trained on a text of real sentences.

Causal models over words: they learn from every word, so that minutes of one core make a model that is clearly better than the
frequencies of words. BERT's layers (post-norm) come out far more distinct than GPT-2's (pre-norm), whose middle layers hardly
differ, and are not the same from seed to seed. Models are folders as transformers saves them, for `contrasim extract --unit word`.
"""

import ast
import collections
import math
import random
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CONTEXT = 48
VOCABULARY = 3000
BATCH = 16
LR, LEAST_LR, RISE = 1.5e-3, 0.02, 100
PAD, UNKNOWN, END = "<pad>", "<unk>", "</s>"
LEARNED = 0.87  # part of the text's words that models learn from; rows are made of the rest


@dataclass(frozen=True)
class Kind:
    """One model: name, width, heads, seed and architecture, bert or gpt2."""

    name: str
    width: int
    heads: int
    seed: int
    architecture: str = "bert"


def kinds(count: int, widths: Sequence[int], architecture: str) -> list[Kind]:
    """`count` models that differ only in their seed, and one of each of the other widths."""
    same = [Kind(f"m{seed}", 128, 4, seed, architecture) for seed in range(count)]
    return [*same, *(Kind(f"w{width}", width, 4, 1000 + width, architecture) for width in widths)]


# --- text ---------------------------------------------------------------------------------------------------------------


def halves(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The lines that models learn from, and the others; lower case, without headings."""
    lines = [line.strip().lower() for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line and not line.startswith("=")]
    total, seen = sum(len(line.split()) for line in lines), 0
    for place, line in enumerate(lines):
        seen += len(line.split())
        if seen > LEARNED * total:
            return lines[:place], lines[place:]
    return lines, []


def sentences(lines: Sequence[str]) -> list[str]:
    """Those of 8 to 40 words, in an order that a seed gives."""
    found = [" ".join(s.split()) for line in lines for s in re.split(r"(?<= [.?!]) ", line)]
    kept = [one for one in dict.fromkeys(found) if 8 <= len(one.split()) <= 40]
    random.Random(0).shuffle(kept)
    return kept


def words_of(wanted: int, pool: Iterator[str]) -> list[str]:
    """So many words of sentences."""
    found, count = [], 0
    for sentence in pool:
        found.append(sentence)
        count += len(sentence.split())
        if count >= wanted:
            break
    return found


def docstrings(known: frozenset[str]) -> list[str]:
    """Sentences of the standard library's documentation in which at least four of five words are known."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if not {"test", "tests", "site-packages", "dist-packages", "lib2to3"} & set(path.parts):
            found.extend(_paragraphs(path))
    return [s for s in sentences(found) if sum(word in known for word in s.split()) >= 0.8 * len(s.split())]


def _paragraphs(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                if not re.search(r">>>|[=_{}\[\]|]", paragraph):
                    yield " ".join(re.findall(r"[a-z]+|\d+|[.,;:()?!'\"]", paragraph.lower()))


def vocabulary(lines: Sequence[str]) -> dict[str, int]:
    """The most frequent words, by number."""
    counted = collections.Counter(word for line in lines for word in line.split())
    words = dict.fromkeys([PAD, UNKNOWN, END, *(word for word, _ in counted.most_common())])
    return {word: number for number, word in enumerate(list(words)[:VOCABULARY])}


# --- models -------------------------------------------------------------------------------------------------------------


def train(kind: Kind, lines: Sequence[str], folder: Path, steps: int, device: str) -> tuple[float, float]:
    """Train one model and save it: its loss on words it did not learn from, and that of their frequencies."""
    known = vocabulary(lines)
    numbers = [known.get(word, known[UNKNOWN]) for line in lines for word in [*line.split(), END]]
    held_out = len(numbers) // 40
    ids, test = torch.tensor(numbers[:-held_out]), torch.tensor(numbers[-held_out:])
    torch.manual_seed(kind.seed)
    model = _model(kind, known).to(device)
    _learn(model, ids.to(device), kind.seed, steps)
    model.cpu().save_pretrained(folder)
    _tokenizer(known).save_pretrained(folder)
    return _loss(model, test), _frequencies(ids, test)


def _model(kind: Kind, known: dict[str, int]) -> Any:
    """A fresh model of six layers."""
    import transformers

    special = {"bos_token_id": known[END], "eos_token_id": known[END], "pad_token_id": known[PAD]}
    common = {"vocab_size": len(known), **special}
    if kind.architecture == "bert":
        size = {"hidden_size": kind.width, "intermediate_size": 2 * kind.width, "num_hidden_layers": 6}
        more = {"num_attention_heads": kind.heads, "max_position_embeddings": CONTEXT, "type_vocab_size": 1}
        plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.05}
        config = transformers.BertConfig(is_decoder=True, use_cache=False, **common, **size, **more, **plain)
        return transformers.BertLMHeadModel(config)
    size = {"n_embd": kind.width, "n_inner": 2 * kind.width, "n_layer": 6, "n_head": kind.heads, "n_positions": CONTEXT}
    plain = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = transformers.GPT2Config(activation_function="gelu_pytorch_tanh", **common, **size, **plain)
    return transformers.GPT2LMHeadModel(config)


def _learn(model: Any, ids: Tensor, seed: int, steps: int) -> None:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    width = model.config.hidden_size
    optimizer = torch.optim.AdamW(groups, lr=LR * min(1, 128 / width), betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1, (t + 1) / RISE) * max(LEAST_LR, 0.5 * (1 + math.cos(math.pi * t / steps)))
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        starts = torch.randint(len(ids) - CONTEXT, (BATCH, 1), generator=generator)
        x = ids[(starts + torch.arange(CONTEXT)).to(ids.device)]
        with torch.autocast(ids.device.type, torch.bfloat16):
            logits = model(x[:, :-1]).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def _loss(model: torch.nn.Module, test: Tensor) -> float:
    x = test[: len(test) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    return float(functional.cross_entropy(model(x[:, :-1]).logits.flatten(0, 1), x[:, 1:].flatten()))


def _frequencies(ids: Tensor, test: Tensor) -> float:
    counts = torch.bincount(ids, minlength=VOCABULARY).double() + 1e-9
    return float(-(counts / counts.sum()).log()[test].mean())


def _tokenizer(known: dict[str, int]) -> object:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel(known, unk_token=UNKNOWN))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": PAD, "unk_token": UNKNOWN, "eos_token": END}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=CONTEXT, **special)
