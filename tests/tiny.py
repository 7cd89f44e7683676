"""Tiny models with random weights, as folders of the kind that transformers saves."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

WORDS = [f"w{number}" for number in range(30)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = {token: number for number, token in enumerate([*SPECIAL, *WORDS])}
WIDTH, DEPTH, POSITIONS = 16, 2, 12
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 2, "intermediate_size": 24}
# weights large enough that layers, masks and positions matter to the values
SPREAD = {"initializer_range": 0.5}


def sentences(count: int, longest: int = 10, seed: int = 0) -> list[str]:
    """Sentences of 1 to `longest` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest + 1))) for _ in range(count)]


def tokenizer(framed: bool, **options: Any) -> Any:
    """A tokenizer of words; `framed` puts [CLS] and [SEP] around a text."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    if framed:
        words.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **options)


def framed_tokenizer(**options: Any) -> Any:
    """The tokenizer of the encoders."""
    return tokenizer(True, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", **options)


def bert(folder: Path, seed: int = 0, **options: Any) -> Path:
    """A BERT that takes `POSITIONS` tokens; options go to its tokenizer."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=POSITIONS, **SIZES, **SPREAD)
    transformers.BertModel(config).save_pretrained(folder)
    framed_tokenizer(**options).save_pretrained(folder)
    return folder


def roberta(folder: Path) -> Path:
    """A RoBERTa, whose positions start behind that of the padding: 14 of them are room for 13 tokens."""
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=len(VOCABULARY), max_position_embeddings=14, pad_token_id=0, **SIZES, **SPREAD
    )
    transformers.RobertaModel(config).save_pretrained(folder)
    framed_tokenizer().save_pretrained(folder)
    return folder


def gpt2(folder: Path, **options: Any) -> Path:
    """A GPT-2 without a padding token; options go to its tokenizer."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=WIDTH, n_layer=DEPTH, n_head=2, n_positions=32,
        bos_token_id=2, eos_token_id=3, **SPREAD,
    )  # fmt: skip
    transformers.GPT2Model(config).save_pretrained(folder)
    tokenizer(False, eos_token="[SEP]", **options).save_pretrained(folder)
    return folder


def t5(folder: Path) -> Path:
    """A T5, of which only the encoder is used."""
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=len(VOCABULARY),
        d_model=WIDTH,
        d_kv=8,
        d_ff=24,
        num_layers=DEPTH,
        num_heads=2,
        decoder_start_token_id=0,
    )
    transformers.T5Model(config).save_pretrained(folder)
    framed_tokenizer().save_pretrained(folder)
    return folder


def vit(folder: Path, channels: int = 1) -> Path:
    """A ViT of 8 x 8 pixels in 4 patches."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=channels, **SIZES, **SPREAD)
    transformers.ViTModel(config).save_pretrained(folder)
    return folder


def dinov2(folder: Path) -> Path:
    """A DINOv2 with a CLS token and three registers before its 4 patches."""
    torch.manual_seed(0)
    config = transformers.Dinov2WithRegistersConfig(
        image_size=8, patch_size=4, num_channels=3, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=2,
        mlp_ratio=2, num_register_tokens=3, **SPREAD,
    )  # fmt: skip
    transformers.Dinov2WithRegistersModel(config).save_pretrained(folder)
    return folder


def image_processor(folder: Path) -> Path:
    """Beside a model: how files become 3 x 8 x 8 numbers."""
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder
