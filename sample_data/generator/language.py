"""Small BERT models and their tokenizers (transformers, tokenizers), trained here from scratch by masking words.

With a single column of text this is masked-language modelling (MLM). With several languages it is MLM on one sentence
mixed with translation-language modelling (TLM, Conneau & Lample 2019): MLM on a sentence and its translation together.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
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
    batch: int = 128
    mlp: int = 2
    positions: int = 96
    vocabulary: int = 1200
    learning_rate: float = 3e-3
    weight_decay: float = 0.01


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer; Chinese characters are words of their own, accents are kept."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False, handle_chinese_chars=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=96, **names)


Ids = list[list[int]]
"""Token ids of each sentence, without [CLS] and [SEP]."""


class Corpus:
    """The same sentences in one or more languages, as token ids."""

    def __init__(self, columns: list[list[str]], tokenizer: PreTrainedTokenizerFast) -> None:
        self.columns: list[Ids] = [tokenizer(column, add_special_tokens=False)["input_ids"] for column in columns]
        self.rows = len(self.columns[0])

    def batch(self, settings: LanguageSettings, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Token ids and token types `[batch, tokens]`, all single sentences or all translation pairs."""
        pairs = bool(rng.random() < settings.translation_share)
        rows = rng.integers(self.rows, size=settings.batch)
        ids, types = zip(*(self._item(row, pairs, rng) for row in rows), strict=True)
        return _padded(ids), _padded(types)

    def _item(self, row: int, pair: bool, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        first, *others = rng.permutation(len(self.columns))
        ids = [CLS, *self.columns[first][row], SEP]
        if not pair:
            return ids, [0] * len(ids)
        second = [*self.columns[others[0]][row], SEP]
        return ids + second, [0] * len(ids) + [1] * len(second)


def _padded(sequences: tuple[list[int], ...]) -> Tensor:
    longest = max(map(len, sequences))
    return torch.tensor([sequence + [PAD] * (longest - len(sequence)) for sequence in sequences])


def masked(ids: Tensor, share: float, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids with `share` of the words replaced (80 % [MASK], 10 % any word, 10 % kept), and where."""
    words = ids > MASK
    chosen = words & (torch.rand(ids.shape, generator=generator) < share)
    fate = torch.rand(ids.shape, generator=generator)
    noise = torch.randint(len(SPECIAL), vocabulary, ids.shape, generator=generator)
    hidden = torch.where(chosen & (fate < 0.8), MASK, ids)
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
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    for _ in range(settings.steps):
        ids, types = corpus.batch(settings, rng)
        loss, _ = _loss(model, ids, types, settings.masked_share, generator)
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


def _loss(
    model: BertForMaskedLM, ids: Tensor, types: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    inputs, chosen = masked(ids, share, model.config.vocab_size, generator)
    rows = model.bert(inputs, attention_mask=(ids != PAD).long(), token_type_ids=types).last_hidden_state
    logits = model.cls(rows[chosen])
    return nn.functional.cross_entropy(logits, ids[chosen]), (logits.argmax(-1) == ids[chosen]).float().mean()


@torch.inference_mode()
def masked_word_scores(
    model: BertForMaskedLM, corpus: Corpus, settings: LanguageSettings, seed: int, batches: int = 20
) -> tuple[float, float]:
    """Cross-entropy (nats) and accuracy on masked words, over sentences drawn as in training."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    scores = [
        torch.stack(_loss(model, *corpus.batch(settings, rng), settings.masked_share, generator))
        for _ in range(batches)
    ]
    loss, accuracy = torch.stack(scores).mean(0).tolist()
    return loss, accuracy


@torch.inference_mode()
def pooled_states(
    model: BertForMaskedLM, texts: list[str], tokenizer: PreTrainedTokenizerFast, pool: str
) -> npt.NDArray[np.float32]:
    """`[layers, n, width]`, embeddings first (for tuning; the stores come from `contrasim extract`)."""
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    states = torch.stack(model.bert(**inputs, output_hidden_states=True).hidden_states)
    if pool == "cls":
        return states[:, :, 0].numpy()
    mask = inputs["attention_mask"][None, :, :, None]
    return ((states * mask).sum(2) / mask.sum(2)).numpy()
