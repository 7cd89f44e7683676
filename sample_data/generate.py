#!/usr/bin/env python3
"""Make everything in `sample_data/` but this program, the README and the demo: data, models, activations.

    python sample_data/generate.py --out sample_data [--only layers|multilingual|image_caption|small]

Every random choice comes from a fixed seed and torch runs on one thread, so that one machine makes the same files
again. Needs the `hf` extra and scikit-learn; ten to twenty minutes.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import BertForMaskedLM
from transformers.utils import logging as transformers_logging

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]

from generator import captions, digits, grammar, language, lexicon, stores, vision  # noqa: E402

SEEDS = range(6)
DIGIT_VIT = vision.VisionSettings(
    image_size=8, patch_size=2, width=32, blocks=6, heads=4, epochs=80, batch=128, learning_rate=5e-3
)
LAYER_ROWS = 2048

BERT = language.LanguageSettings(width=64, blocks=4, heads=2, steps=4000, translation_share=0.9)
SENTENCES, TEST_SENTENCES, STORED_SENTENCES = 6000, 632, 1536

SCENE_VIT = vision.VisionSettings(
    image_size=16, patch_size=4, width=48, blocks=4, heads=4, epochs=15, learning_rate=4e-3
)
CAPTION_BERT = language.LanguageSettings(width=48, blocks=4, heads=4, steps=1000, batch=64, masked_share=0.25)
SMALL_CAPTION_BERT = language.LanguageSettings(width=32, blocks=3, heads=4, steps=600, batch=64, masked_share=0.25)
SCENES, TEST_SCENES, STORED_SCENES = 6000, 1280, 3072


def main() -> None:
    """Read the command line and make what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--only", choices=PARTS, help="make one of the four parts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    out = options.out.resolve()
    for name in [options.only] if options.only else PARTS:
        with tempfile.TemporaryDirectory() as work:
            started = time.monotonic()
            PARTS[name](out, Path(work))
            say(f"{name}: {time.monotonic() - started:.0f} s")


def make_layers(out: Path, work: Path) -> None:
    """Six digit ViTs that differ in their seed only, and the CLS rows of their blocks."""
    train, test = digits.split_digits(seed=0)
    inputs = {
        "train": stores.save_images(digits.with_shifted_copies(train, LAYER_ROWS, seed=0), work / "train"),
        "test": stores.save_images(test, work / "test"),
    }
    for seed in SEEDS:
        model = vision.train_vit(DIGIT_VIT, train, seed)
        say(f"digit ViT, seed {seed}: accuracy {vision.accuracy(model, test):.4f} on test digits")
        folder = stores.save_model(model.vit, work / f"digit_vit_seed_{seed}")
        for split, images in inputs.items():
            stores.extract_images(folder, images, out / "layers" / split / f"seed_{seed}.h5", "cls")
        if seed == SEEDS[0]:
            shutil.copytree(folder, out / "models" / "digit_vit", dirs_exist_ok=True)
    some = digits.Labelled(test.images[:48], test.labels[:48], test.ids[:48])
    stores.save_images(some, out / "inputs" / "digits")


def make_multilingual(out: Path, _: Path) -> None:
    """One multilingual BERT, and its rows for sentences in five languages."""
    sentences = grammar.parallel_sentences(TEST_SENTENCES + SENTENCES, seed=0)
    columns = {name: [sentence[name] for sentence in sentences] for name in lexicon.LANGUAGES}
    train = [texts[TEST_SENTENCES:] for texts in columns.values()]
    test = [texts[:TEST_SENTENCES] for texts in columns.values()]
    tokenizer = language.word_tokenizer([text for texts in train for text in texts])
    model = language.train_bert(BERT, language.Corpus(train, tokenizer), tokenizer, seed=0)
    report_language("multilingual BERT", model, language.Corpus(test, tokenizer), BERT, pairs=False)
    report_language("multilingual BERT with the translation", model, language.Corpus(test, tokenizer), BERT, pairs=True)
    folder = stores.save_model(model, out / "models" / "multilingual_bert", tokenizer)
    ranges = {"test": (0, TEST_SENTENCES), "train": (TEST_SENTENCES, TEST_SENTENCES + STORED_SENTENCES)}
    for split, (first, last) in ranges.items():
        ids = [f"sentence_{row:04d}" for row in range(first, last)]
        chosen = {"id": ids} | {name: texts[first:last] for name, texts in columns.items()}
        table = stores.save_table(chosen, out / "multilingual" / f"{split}.tsv")
        output = str(out / "multilingual" / split / "{column}.h5")
        stores.extract_texts(folder, table, lexicon.LANGUAGES, output, "mean")


def make_image_caption(out: Path, work: Path) -> None:
    """Scenes of four digits seen by a ViT, and their captions read by a BERT."""
    train_digits, test_digits = digits.split_digits(seed=0)
    train = digits.scenes(train_digits, SCENES, 1, "train")
    test = digits.scenes(test_digits, TEST_SCENES, 2, "test")
    viewer = vision.train_vit(SCENE_VIT, train, seed=0)
    say(f"scene ViT: accuracy {vision.accuracy(viewer, test):.4f} on the digits of test scenes")
    texts = {"train": captions.captions(train.labels, 1), "test": captions.captions(test.labels, 2)}
    tokenizer = language.word_tokenizer(texts["train"])
    corpus = language.Corpus([texts["train"]], tokenizer)
    reader = language.train_bert(CAPTION_BERT, corpus, tokenizer, seed=0)
    report_language("caption BERT", reader, language.Corpus([texts["test"]], tokenizer), CAPTION_BERT, pairs=False)
    eye = stores.save_model(viewer.vit, work / "scene_vit")
    tongue = stores.save_model(reader, out / "models" / "caption_bert", tokenizer)
    for split, scenes, rows in (("train", train, STORED_SCENES), ("test", test, TEST_SCENES)):
        kept = digits.Labelled(scenes.images[:rows], scenes.labels[:rows], scenes.ids[:rows])
        table = stores.save_table(
            {"id": kept.ids, "caption": texts[split][:rows]}, out / "image_caption" / f"{split}.tsv"
        )
        folder = out / "image_caption" / split
        stores.extract_images(eye, stores.save_images(kept, work / split), folder / "image.h5", "cls")
        stores.extract_texts(tongue, table, ["caption"], str(folder / "caption.h5"), "mean")


def make_small(out: Path, _: Path) -> None:
    """A second, smaller BERT that learns the same captions with the same tokenizer, from another seed."""
    train_digits, test_digits = digits.split_digits(seed=0)
    train = captions.captions(digits.scenes(train_digits, SCENES, 1, "train").labels, 1)
    test = captions.captions(digits.scenes(test_digits, TEST_SCENES, 2, "test").labels, 2)
    tokenizer = language.word_tokenizer(train)
    reader = language.train_bert(SMALL_CAPTION_BERT, language.Corpus([train], tokenizer), tokenizer, seed=1)
    report_language("small caption BERT", reader, language.Corpus([test], tokenizer), SMALL_CAPTION_BERT, pairs=False)
    stores.save_model(reader, out / "models" / "caption_bert_small", tokenizer)


def report_language(
    name: str, model: BertForMaskedLM, corpus: language.Corpus, settings: language.LanguageSettings, pairs: bool
) -> None:
    """Say how well a BERT fills in the masked words of test sentences."""
    loss, accuracy = language.masked_word_scores(model, corpus, settings, pairs, seed=0)
    say(f"{name}: loss {loss:.3f}, accuracy {accuracy:.4f} on masked words of test sentences")


def say(line: str) -> None:
    """Report on stderr."""
    print(line, file=sys.stderr, flush=True)


PARTS = {
    "layers": make_layers,
    "multilingual": make_multilingual,
    "image_caption": make_image_caption,
    "small": make_small,
}

if __name__ == "__main__":
    main()
