"""Tiny models with random weights, as folders of the kind that transformers saves."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

WORDS = [f"w{number}" for number in range(30)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = {token: number for number, token in enumerate([*SPECIAL, *WORDS])}
WIDTH, DEPTH, POSITIONS = 16, 2, 12
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 2, "intermediate_size": 24}
# what the tokenizers of sub-words are trained on
PIECES = ["the unbelievable winter of the talkers, talking", "a winter's tale; walking and walked in the winter"] * 4
SUBWORDS = 320
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


def byte_tokenizer(framed: bool, **options: Any) -> Any:
    """GPT-2's and RoBERTa's kind: bytes, the space before a word being part of its first token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made.train_from_iterator(
        PIECES, trainers.BpeTrainer(vocab_size=SUBWORDS, special_tokens=special, initial_alphabet=alphabet)
    )
    if framed:
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    else:
        made.post_processor = processors.ByteLevel(trim_offsets=False)
    ends = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **(ends if framed else {}), **options)


CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] | trim }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def chat_tokenizer(**options: Any) -> Any:
    """A chat model's kind: bytes, BOS before every text, a template of chats that writes BOS itself."""
    made = byte_tokenizer(False).backend_tokenizer
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)]),
        ]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, chat_template=CHAT, **names, **options)


def wordpiece_tokenizer(**options: Any) -> Any:
    """BERT's kind: lower case, punctuation and continued pieces."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(PIECES, trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL))
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names, **options)


def sentencepiece_tokenizer(**options: Any) -> Any:
    """T5's and XLM-R's kind: a mark before every word."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    made.train_from_iterator(
        PIECES, trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names, **options)


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


def llama(folder: Path, **options: Any) -> Path:
    """A Llama that takes 64 tokens, with the tokenizer of chats; options go to its tokenizer."""
    from_config(folder, TEXT_CONFIGS["llama"]())
    chat_tokenizer(**options).save_pretrained(folder)
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


def image_processor(folder: Path, side: int = 8, **options: Any) -> Path:
    """Beside a model: how files become 3 x side x side numbers."""
    transformers.ViTImageProcessor(size={"height": side, "width": side}, **options).save_pretrained(folder)
    return folder


KEYS = {"vocab_size": SUBWORDS, "pad_token_id": 0}
GROUPED = {"num_key_value_heads": 1}
TEXT_CONFIGS = {
    "bert": lambda: transformers.BertConfig(max_position_embeddings=64, **KEYS, **SIZES, **SPREAD),
    "roberta": lambda: transformers.RobertaConfig(max_position_embeddings=64, **KEYS, **SIZES, **SPREAD),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(max_position_embeddings=64, **KEYS, **SIZES, **SPREAD),
    "distilbert": lambda: transformers.DistilBertConfig(
        max_position_embeddings=64, dim=WIDTH, n_layers=DEPTH, n_heads=2, hidden_dim=24, **KEYS, **SPREAD
    ),
    "gpt2": lambda: transformers.GPT2Config(
        n_positions=64, n_embd=WIDTH, n_layer=DEPTH, n_head=2, bos_token_id=0, eos_token_id=0, **KEYS, **SPREAD
    ),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(max_position_embeddings=64, **KEYS, **SIZES, **SPREAD),
    "llama": lambda: transformers.LlamaConfig(max_position_embeddings=64, **KEYS, **GROUPED, **SIZES, **SPREAD),
    "qwen2": lambda: transformers.Qwen2Config(max_position_embeddings=64, **KEYS, **GROUPED, **SIZES, **SPREAD),
    "qwen3": lambda: transformers.Qwen3Config(
        max_position_embeddings=64, head_dim=8, **KEYS, **GROUPED, **SIZES, **SPREAD
    ),
    "t5": lambda: transformers.T5Config(
        d_model=WIDTH, d_kv=8, d_ff=24, num_layers=DEPTH, num_heads=2, decoder_start_token_id=0, **KEYS
    ),
}
IMAGE = {"image_size": 16, "patch_size": 4, "num_channels": 3}
STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16]}
IMAGE_CONFIGS = {
    "vit": lambda: transformers.ViTConfig(**IMAGE, **SIZES, **SPREAD),
    "deit": lambda: transformers.DeiTConfig(**IMAGE, **SIZES, **SPREAD),
    "dinov2": lambda: transformers.Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=2, mlp_ratio=2, **IMAGE, **SPREAD
    ),
    "swin": lambda: transformers.SwinConfig(
        image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, **SPREAD
    ),
    "convnext": lambda: transformers.ConvNextConfig(num_stages=2, **STAGES, **SPREAD),
    "resnet": lambda: transformers.ResNetConfig(embedding_size=8, layer_type="basic", **STAGES),
}


WAVES = {"conv_dim": (WIDTH,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, **SIZES, **SPREAD}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
SQUEEZED = {"squeeze_factor": 2, "conv_dim": (WIDTH,) * 13, **{key: WAVES[key] for key in WAVES if key != "conv_dim"}}
WAVE_CONFIGS = {
    "wav2vec2": lambda: transformers.Wav2Vec2Config(**WAVES),
    "wav2vec2-mms": lambda: transformers.Wav2Vec2Config(adapter_attn_dim=4, **STABLE, **WAVES),
    "hubert": lambda: transformers.HubertConfig(**WAVES),
    "wavlm": lambda: transformers.WavLMConfig(**WAVES),
    "unispeech": lambda: transformers.UniSpeechConfig(**WAVES),
    "data2vec-audio": lambda: transformers.Data2VecAudioConfig(
        conv_pos_kernel_size=3,
        num_conv_pos_embeddings=2,
        conv_dim=(WIDTH,) * 7,
        num_conv_pos_embedding_groups=2,
        **SIZES,
        **SPREAD,
    ),
    "sew": lambda: transformers.SEWConfig(**SQUEEZED),
}
SPEECH = {
    "d_model": WIDTH, "encoder_layers": DEPTH, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "init_std": 0.5,
}  # fmt: skip
CLAP_AUDIO = {
    "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16, "num_hidden_layers": 2,
    "projection_dim": 12,
}  # fmt: skip
SPECTRUM_CONFIGS = {
    "whisper": lambda: transformers.WhisperConfig(num_mel_bins=8, **SPEECH),
    "ast": lambda: transformers.ASTConfig(max_length=128, num_mel_bins=32, **SIZES, **SPREAD),
    "clap": lambda: transformers.ClapConfig(
        text_config={"vocab_size": 40, "max_position_embeddings": 20, "projection_dim": 12, **SIZES},
        audio_config=CLAP_AUDIO,
        projection_dim=12,
    ),
}
EXTRACTORS = {
    "whisper": lambda: transformers.WhisperFeatureExtractor(feature_size=8),
    "ast": lambda: transformers.ASTFeatureExtractor(max_length=128, num_mel_bins=32),
    "clap": lambda: transformers.ClapFeatureExtractor(truncation="rand_trunc"),
    "wav2vec2-mms": lambda: transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True),
}


def hearing(folder: Path, kind: str) -> Path:
    """A model of sounds, with its feature extractor."""
    from_config(folder, (WAVE_CONFIGS | SPECTRUM_CONFIGS)[kind]())
    extractor = EXTRACTORS.get(kind, lambda: transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mel filters that are too narrow
        extractor().save_pretrained(folder)
    return folder


def from_config(folder: Path, config: Any) -> Path:
    """A model with random weights."""
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def two_towers(folder: Path, kind: str) -> Path:
    """A CLIP or SigLIP of tiny towers, with its tokenizer and image processor."""
    text, vision, both = {
        "clip": (transformers.CLIPTextConfig, transformers.CLIPVisionConfig, transformers.CLIPConfig),
        "siglip": (transformers.SiglipTextConfig, transformers.SiglipVisionConfig, transformers.SiglipConfig),
    }[kind]
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    width = {"projection_dim": 12} if kind == "clip" else {"projection_size": WIDTH}
    words = text(vocab_size=SUBWORDS, max_position_embeddings=20, **ends, **width, **SIZES)
    sights = vision(**IMAGE, **(width if kind == "clip" else {}), **SIZES)
    config = both(text_config=words.to_dict(), vision_config=sights.to_dict(), **(width if kind == "clip" else {}))
    from_config(folder, config)
    byte_tokenizer(True, padding_side="right").save_pretrained(folder)
    image_processor(folder, IMAGE["image_size"])
    return folder
