"""Models of Hugging Face's transformers, from a folder or from the hub.

Nothing is unpickled (safetensors, or tensors read with `weights_only`), and no code of a model's repository is run.
"""

import hashlib
import importlib.util
import inspect
import json
import logging
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contrasim_cli.errors import ContraSimError, InputError, MissingError, UsageError, reason
from contrasim_cli.extraction.networks.adapters import Adapter, adapted, adapter_of
from contrasim_cli.extraction.networks.audio import AudioNetwork
from contrasim_cli.extraction.networks.network import ModelOptions, Network, choose_pool
from contrasim_cli.extraction.networks.parts import TOKENS as TEXT
from contrasim_cli.extraction.networks.parts import Part, take_part
from contrasim_cli.extraction.networks.text import Sentence, TextNetwork
from contrasim_cli.extraction.networks.text_pairs import PairNetwork
from contrasim_cli.extraction.networks.text_rows import text_pooling
from contrasim_cli.extraction.networks.vision import VisionNetwork
from contrasim_cli.extraction.pooling import AUDIO_POOLS, IMAGE_POOLS
from contrasim_cli.extraction.sources.source import Source, file_digest
from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

MODEL_FILES = {".json", ".txt", ".model", ".safetensors", ".jinja", ".tiktoken"}
PICKLED = {".bin", ".pt", ".pth"}
EXTRAS = ("timm", "peft")  # whose libraries transformers asks for by these names
CLOSED = {"trust_remote_code": False}  # said aloud, or transformers asks on the terminal
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
POOLINGS = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}  # fmt: skip
MODULES = "modules.json"  # of a sentence-transformers folder: the parts that make its embedding
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
IMAGES = "pixel_values"
KINDS = {TEXT: "text", IMAGES: "images", "input_values": "sound", "input_features": "sound"}


def load_pretrained(options: ModelOptions, source: Source | None) -> Network:
    """A local folder or a model of the hub, for texts, images or sounds.

    Without a source, the part asked for, or else the model itself, says which.
    """
    transformers = _import()
    asked, folder = options, Path(options.model)
    adapter, sentence = adapter_of(folder), sentence_of(folder)
    if adapter is not None:
        options = _based(options, adapter)
    elif sentence is not None:
        options = replace(options, model=str(sentence.folder))
    _check_name(options)
    config = _fetch(options.model, transformers.AutoConfig, options.revision)
    model, unsaved = _model(options, config, transformers)
    if adapter is not None:
        model = adapted(model, adapter).eval()
    part = take_part(model, options.part, source.kind if source else None, options.model, unsaved)
    network = _network(options, part, config, transformers, source)
    network.options = asked  # which hold the name of the folder above, or of the adapter
    if adapter is not None:
        network.digest = adapter.digest(network.digest)
    elif sentence is not None and isinstance(network, TextNetwork):
        network.take_sentence(sentence)
    return network


def _based(options: ModelOptions, adapter: Adapter) -> ModelOptions:
    """The options of the model that an adapter is for, with the adapter's tokenizer where it has one."""
    if options.revision is not None or options.random_weights:
        name = "--revision" if options.revision is not None else "--random-weights"
        raise UsageError(f"{name} does not go with the adapter {quoted(options.model)}; leave it out")
    own = options.model if _has_any(options.model, TOKENIZER_FILES) else None
    return replace(options, model=adapter.base, revision=adapter.revision, tokenizer=options.tokenizer or own)


def _network(
    options: ModelOptions, part: Part, config: Any, transformers: Any, source: Source | None
) -> TextNetwork | AudioNetwork | VisionNetwork:
    kind = source.kind if source else None
    if kind == "text" or (kind is None and _main_input(part) == TEXT):
        pool = text_pool(options)
        _check_modality(options.model, part, TEXT, "text")
        tokenizer = _tokenizer(options, transformers)
        kept_words = source.words if source else {}
        reads = TextNetwork if options.decoder_text is None else PairNetwork
        return reads(options, part, _digest(options, config), pool, tokenizer=tokenizer, kept_words=kept_words)
    if kind == "audio" or (kind is None and _main_input(part) != IMAGES):
        pool = sound_pool(options)
        _check_hears(options.model, part)
        extractor = _extractor(options, transformers)
        return AudioNetwork(options, part, _digest(options, config), pool, source=source, extractor=extractor)
    pool = image_pool(options)
    _check_modality(options.model, part, IMAGES, "images")
    processor = None
    if kind == "images" or (kind is None and _has_any(options.model, PROCESSOR_FILES)):
        processor = _processor(options, transformers.AutoImageProcessor, "image", "an image processor")
    return VisionNetwork(options, part, _digest(options, config), pool, source=source, processor=processor)


def sentence_of(folder: Path) -> Sentence | None:
    """What the modules of a sentence-transformers folder make of a text; None for other folders.

    Raises:
        InputError: it has other modules than a transformer, a pooling of one way, and a normalisation.
    """
    if not (folder / MODULES).is_file():
        return None
    modules = _read(folder / MODULES)
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"{quoted(folder)}: is a sentence-transformers folder of {', '.join(kinds)}; a Transformer, a Pooling and a Normalize "
            "are read: give the folder of its Transformer, or --model file.py:function"
        )
    inner = folder / modules[0]["path"]
    if not inner.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{quoted(folder / MODULES)}: names a folder outside of it")
    settings = inner / "sentence_bert_config.json"
    limit = _read(settings).get("max_seq_length") if settings.is_file() else None
    pooling = _read(folder / modules[1]["path"] / "config.json")
    ways = [way for name, way in POOLINGS.items() if pooling.get(name)] or [pooling.get("pooling_mode")]
    if len(ways) != 1 or ways[0] not in POOLINGS.values():
        raise InputError(f"{quoted(folder)}: its pooling is not one of {', '.join(POOLINGS.values())}")
    return Sentence(inner, str(ways[0]), len(kinds) == 3, limit)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{quoted(path)}: cannot be read ({reason(error)})") from error


def text_pool(options: ModelOptions) -> str:
    """How tokens become rows; options that are not for texts are refused."""
    if options.axes is not None:
        raise UsageError(f"--axes is for arrays and images; of {quoted(options.model)} the axes are known: give --pool")
    return text_pooling(options)


def image_pool(options: ModelOptions) -> str:
    """How patches become a row, empty where the model decides; options that are not for images are refused."""
    pool = choose_pool(options.pool, IMAGE_POOLS, "", "images")
    given = {"--max-length": options.max_length is not None, "--tokenizer": options.tokenizer is not None}
    given["--unit word"] = options.unit == "word"
    for name in (name for name, is_given in given.items() if is_given):
        raise UsageError(f"{name} is for text; images are {'not cut' if name == '--max-length' else 'no words'}")
    return pool


def sound_pool(options: ModelOptions) -> str:
    """How frames become rows; options that are not for sounds are refused."""
    given = {"--max-length": options.max_length, "--tokenizer": options.tokenizer, "--axes": options.axes}
    given["--unit word"] = options.unit == "word" or None
    for name in (name for name, value in given.items() if value is not None):
        raise UsageError(f"{name} does not go with sounds; leave it out")
    return choose_pool(options.pool, AUDIO_POOLS, "mean", "sounds")


def _extractor(options: ModelOptions, transformers: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its mel filters, which are what the model was trained with
        return _processor(options, transformers.AutoFeatureExtractor, "sound", "a feature extractor")


def _check_hears(name: str, part: Part) -> None:
    if part.model is part.whole and _main_input(part) in (TEXT, IMAGES):
        raise UsageError(f"{quoted(name)}: is a model of {KINDS[_main_input(part)]}, not of sound")


def _import() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingError("extract --model needs the extra hf: pip install 'contrasim[hf]'") from error
    # its warnings are about training, its bars about loading; what matters of them is checked here
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return transformers


def _fetch(model: str, kind: Any, revision: str | None) -> Any:
    """Load a part of the model, from its folder or from the hub."""
    try:
        return kind.from_pretrained(model, revision=revision or "main", **CLOSED)
    except ImportError as error:
        raise _missing(model, error) from error
    except Exception as error:  # transformers raises whatever its parts trip over
        raise _unloadable(model, error) from error


def _check_name(options: ModelOptions) -> None:
    model = options.model
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise InputError(
                f"{quoted(model)}: is not the folder of a model: it has no config.json; save one with save_pretrained"
            )
        if options.revision is not None:
            raise UsageError(f"--revision is for models of the hub; {quoted(model)} is a folder, leave it out")
        return
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or model.endswith("/"):
        raise InputError(f"{quoted(model)}: there is no such folder")
    log.info("%s is not a local folder: it is taken from the Hugging Face hub or its cache", quoted(model))


def _missing(model: str, error: ImportError) -> MissingError:
    """The error that a library is not there, with the extra that brings it where one does."""
    said = " ".join(str(error).split())
    extra = next((name for name in EXTRAS if f"{name} library" in said), None)
    if extra is not None:
        return MissingError(f"{quoted(model)}: needs the extra {extra}: pip install 'contrasim[{extra}]'")
    return MissingError(f"{quoted(model)}: {said[:200]}")


def _unloadable(model: str, error: Exception) -> InputError:
    if "trust_remote_code" in str(error):
        return InputError(
            f"{quoted(model)}: needs code from its repository, which is not run; give --model file.py:function"
        )
    if isinstance(error, pickle.UnpicklingError):
        return InputError(
            f"{quoted(model)}: its weights are a pickle of more than tensors; only safetensors or plain tensors are read"
        )
    if not Path(model).is_dir():
        return InputError(
            f"{quoted(model)}: is not a local folder and cannot be fetched from the Hugging Face hub ({reason(error)})"
        )
    return InputError(f"{quoted(model)}: cannot be loaded ({reason(error)})")


def _tokenizer(options: ModelOptions, transformers: Any) -> Any:
    """The model's own tokenizer, or the one asked for, to which the model's revision means nothing."""
    name = options.tokenizer or options.model
    missing = InputError(f"{quoted(name)}: has no tokenizer; save one there with save_pretrained, or give --tokenizer")
    if Path(name).is_dir() and not _has_any(name, TOKENIZER_FILES):
        raise missing
    tokenizer = _fetch(name, transformers.AutoTokenizer, None if options.tokenizer else options.revision)
    # without its vocabulary some are made all the same, of special tokens alone
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)) + 1:
        raise InputError(
            f"{quoted(name)}: its tokenizer knows {len(tokenizer)} special tokens and no words: the vocabulary is missing; save it "
            "there with save_pretrained, or give --tokenizer"
        )
    return tokenizer


def _processor(options: ModelOptions, kind: Any, what: str, name: str) -> Any:
    """What makes inputs of files; some say in their config.json how, without a file of its own."""
    model = options.model
    try:
        return _fetch(model, kind, options.revision)
    except InputError as error:
        if not Path(model).is_dir() or _has_any(model, PROCESSOR_FILES):
            raise
        remedy = f"save {name} there" + (", or give --arrays" if what == "image" else "")
        raise InputError(
            f"{quoted(model)}: has no preprocessor_config.json, which says how {what} files become numbers; {remedy}"
        ) from error


def _has_any(folder: str, names: tuple[str, ...]) -> bool:
    return any((Path(folder) / name).is_file() for name in names)


def _main_input(part: Part) -> str:
    """The name of what a part is fed."""
    return str(getattr(part.whole if part.is_second else part.model, "main_input_name", TEXT))


def _check_modality(name: str, part: Part, wanted: str, what: str) -> None:
    """Refuse a model of something else before it fails in its own words."""
    found = _main_input(part)
    # parts may have the name from the whole that they belong to
    if found != wanted and (part.model is part.whole or wanted not in inspect.signature(part.model.forward).parameters):
        raise UsageError(f"{quoted(name)}: is a model of {KINDS.get(found, found)}, not of {what}")


def _model(options: ModelOptions, config: Any, transformers: Any) -> tuple[nn.Module, list[str]]:
    """The model, and the names of those of its weights that are random because its files do not hold them."""
    unsaved: list[str] = []
    spread = {"device_map": "auto"} if options.spread else {}
    if options.spread and importlib.util.find_spec("accelerate") is None:
        raise MissingError("--device auto needs the extra spread: pip install 'contrasim[spread]'")
    kept = options.weights_dtype if options.weights_dtype == "auto" else getattr(torch, options.weights_dtype)
    # the conversion of other people's .bin files is none of our business, and would run in the background
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    try:
        if options.random_weights:
            model = transformers.AutoModel.from_config(config, dtype=kept if kept != "auto" else None, **CLOSED)
        else:
            model, report = transformers.AutoModel.from_pretrained(
                options.model,
                output_loading_info=True,
                dtype=kept,
                revision=options.revision or "main",
                **spread,
                **CLOSED,
            )
            unsaved = _check_complete(options.model, report)
    except ImportError as error:
        raise _missing(options.model, error) from error
    except ContraSimError:
        raise
    except Exception as error:
        raise _unloadable(options.model, error) from error
    model.config.use_cache = False
    result: nn.Module = model.eval()
    # quantised weights are where their package put them, spread ones where their map says
    stays = (options.spread and not options.random_weights) or getattr(model, "hf_quantizer", None)
    return result if stays else result.to(options.device), unsaved


def _check_complete(model: str, report: Mapping[str, Any]) -> list[str]:
    """Refuse a model some of whose hidden states would be random numbers; the other random weights come back."""
    absent = sorted(report["missing_keys"])
    missing = [name for name in absent if "pooler" not in name]
    wrong = [str(entry[0]) for entry in report.get("mismatched_keys", ())]
    if missing or wrong:
        name = (missing + wrong)[0]
        raise InputError(
            f"{quoted(model)}: {len(missing) + len(wrong)} weights of its architecture are missing or of another shape, first "
            f"{quoted(name)}; its config.json and its weights do not belong together"
        )
    return absent


def _digest(options: ModelOptions, config: Any) -> str:
    """Digest of the files that a model, and the tokenizer where it is another's, are loaded from."""
    folder = _folder(options.model, "config.json", options.revision)
    names = sorted(path.name for path in folder.iterdir() if path.suffix in MODEL_FILES and path.is_file())
    if not any(name.endswith(".safetensors") for name in names):
        names += sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if options.random_weights:
        names = [name for name in names if not name.endswith((*PICKLED, ".safetensors"))]
    digests = [(name, file_digest(folder / name)) for name in names]
    return hashlib.sha256(json.dumps(digests + _tokenizer_digests(options)).encode()).hexdigest()


def _tokenizer_digests(options: ModelOptions) -> list[tuple[str, str]]:
    if options.tokenizer is None:
        return []
    folder = _folder(options.tokenizer, "tokenizer_config.json", None)
    names = sorted(path.name for path in folder.iterdir() if path.suffix in MODEL_FILES - {".safetensors"})
    return [(f"tokenizer/{name}", file_digest(folder / name)) for name in names if (folder / name).is_file()]


def _folder(model: str, file: str, revision: str | None) -> Path:
    from transformers.utils import cached_file

    return Path(str(cached_file(model, file, revision=revision or "main"))).parent
