"""Small BERT models and their tokenizers (transformers, tokenizers), trained here from scratch by masking words.

With a single column of text this is masked-language modelling (MLM). With several languages it is MLM on one sentence
mixed with translation-language modelling (TLM, Conneau & Lample 2019): MLM on a sentence and its translation together.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class LanguageSettings:
    """Shape and training of one BERT."""

    width: int
    blocks: int
    heads: int
    steps: int
    translation_share: float = 0.0
    masked_share: float = 0.2
    pair_masked_share: float = 0.5
    batch: int = 48
    mlp: int = 2
    positions: int = 96
    learning_rate: float = 4e-3
    weight_decay: float = 0.01


def word_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A lower-casing tokenizer of whole words; Chinese characters are words of their own, accents are kept.

    The vocabulary is listed in alphabetical order: the trainers of `tokenizers` break ties differently in every run.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False, handle_chinese_chars=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    normalized = (tokenizer.normalizer.normalize_str(text) for text in texts)
    words = {word for text in normalized for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *sorted(words)])}
    tokenizer.model = models.WordLevel(vocabulary, unk_token="[UNK]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=96, **names)


Ids = list[list[int]]
"""Token ids of each sentence, without [CLS] and [SEP]."""


class Batch(NamedTuple):
    """Sentences or translation pairs, each field `[batch, tokens]`."""

    ids: Tensor
    types: Tensor  # 0, and 1 in the second sentence of a pair
    positions: Tensor  # counted from the start of each sentence (Conneau & Lample 2019, Figure 1)
    open: Tensor  # words that may be masked: in a pair those of one sentence, so that the other one can be used


class Corpus:
    """The same sentences in one or more languages, as token ids."""

    def __init__(self, columns: list[list[str]], tokenizer: PreTrainedTokenizerFast) -> None:
        self.columns: list[Ids] = [tokenizer(column, add_special_tokens=False)["input_ids"] for column in columns]
        self.rows = len(self.columns[0])

    def batch(self, size: int, pairs: bool, rng: np.random.Generator) -> Batch:
        """`size` sentences in random languages, or pairs of translations."""
        items = [self._item(row, pairs, rng) for row in rng.integers(self.rows, size=size)]
        return Batch(*(_padded(field) for field in zip(*items, strict=True)))

    def _item(self, row: int, pair: bool, rng: np.random.Generator) -> tuple[list[int], ...]:
        first, *others = rng.permutation(len(self.columns))
        ids = [CLS, *self.columns[first][row], SEP]
        if not pair:
            return ids, [0] * len(ids), list(range(len(ids))), [1] * len(ids)
        second = [*self.columns[others[0]][row], SEP]
        side = int(rng.integers(2))
        return (
            ids + second,
            [0] * len(ids) + [1] * len(second),
            [*range(len(ids)), *range(len(second))],
            [1 - side] * len(ids) + [side] * len(second),
        )


def _padded(sequences: tuple[list[int], ...]) -> Tensor:
    longest = max(map(len, sequences))
    return torch.tensor([sequence + [PAD] * (longest - len(sequence)) for sequence in sequences])


def masked(batch: Batch, share: float, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids with `share` of the open words replaced (80 % [MASK], 10 % any word, 10 % kept), and where."""
    words = (batch.ids > MASK) & batch.open.bool()
    chosen = words & (torch.rand(words.shape, generator=generator) < share)
    fate = torch.rand(words.shape, generator=generator)
    noise = torch.randint(len(SPECIAL), vocabulary, words.shape, generator=generator)
    hidden = torch.where(chosen & (fate < 0.8), MASK, batch.ids)
    return torch.where(chosen & (fate >= 0.9), noise, hidden), chosen


def train_bert(
    settings: LanguageSettings, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, seed: int
) -> BertForMaskedLM:
    """A `BertForMaskedLM` after AdamW with a one-cycle rate; everything random comes from `seed`."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    model = BertForMaskedLM(_config(settings, len(tokenizer)))
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=0.05
    )
    for _ in range(settings.steps):
        pairs = bool(rng.random() < settings.translation_share)
        batch = corpus.batch(settings.batch, pairs, rng)
        loss, _ = _loss(model, batch, settings.pair_masked_share if pairs else settings.masked_share, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def _config(settings: LanguageSettings, vocabulary: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=settings.width,
        num_hidden_layers=settings.blocks,
        num_attention_heads=settings.heads,
        intermediate_size=settings.mlp * settings.width,
        max_position_embeddings=settings.positions,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=PAD,
        # The usual 0.02 suits width 768; rows this narrow need larger weights to start learning at once.
        initializer_range=0.08,
    )


def _loss(model: BertForMaskedLM, batch: Batch, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs, chosen = masked(batch, share, model.config.vocab_size, generator)
    attention = (batch.ids != PAD).long()
    states = model.bert(inputs, attention, batch.types, batch.positions).last_hidden_state
    logits, target = model.cls(states[chosen]), batch.ids[chosen]
    return nn.functional.cross_entropy(logits, target), (logits.argmax(-1) == target).float().mean()


@torch.inference_mode()
def masked_word_scores(
    model: BertForMaskedLM, corpus: Corpus, settings: LanguageSettings, pairs: bool, seed: int
) -> tuple[float, float]:
    """Cross-entropy (nats) and accuracy on masked words, over 20 batches drawn as in training."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    share = settings.pair_masked_share if pairs else settings.masked_share
    scores = [torch.stack(_loss(model, corpus.batch(settings.batch, pairs, rng), share, generator)) for _ in range(20)]
    loss, accuracy = torch.stack(scores).mean(0).tolist()
    return loss, accuracy


@torch.inference_mode()
def pooled_states(model: BertForMaskedLM, texts: list[str], tokenizer: PreTrainedTokenizerFast, pool: str) -> Tensor:
    """`[layers, n, width]`, embeddings first (for tuning; the stores come from `contrasim extract`)."""
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    states = torch.stack(model.bert(**inputs, output_hidden_states=True).hidden_states)
    mask = inputs["attention_mask"][None, :, :, None]
    pooled: Tensor = states[:, :, 0] if pool == "cls" else (states * mask).sum(2) / mask.sum(2)
    return pooled
