"""Models of Hugging Face's transformers: every hidden state is a layer, `hidden_0` (embeddings) to `hidden_L`.

Nothing is unpickled (safetensors, or tensors read with `weights_only`), and no code of a model's repository is run.
"""

import hashlib
import json
import logging
import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contrasim_cli.errors import ContraSimError, InputError, MismatchError, MissingError, UsageError
from contrasim_cli.extraction.inputs import Items, Source, file_digest, open_image
from contrasim_cli.extraction.models import Inputs, ModelOptions, Network, choose_pool, shapes, short_name, to_device
from contrasim_cli.extraction.pooling import IMAGE_POOLS, TEXT_POOLS, pool_patches, pool_tokens, spatial_mean
from contrasim_cli.files import quoted
from contrasim_cli.store.select import select_layers

log = logging.getLogger(__name__)

UNLIMITED = 10**9  # tokenizers without a limit say 1e30
MODEL_FILES = {".json", ".txt", ".model", ".safetensors", ".jinja", ".tiktoken"}
PICKLED = {".bin", ".pt", ".pth"}
CLOSED = {"trust_remote_code": False}  # said aloud, or transformers asks on the terminal


def load_pretrained(options: ModelOptions, source: Source) -> Network:
    """A local folder or a model of the hub, for texts or for images."""
    transformers = _import()
    _check_name(options.model)
    if not Path(options.model).is_dir():
        log.info(
            "%s is no folder here: it is taken from the Hugging Face hub, or from its cache", quoted(options.model)
        )
    config = _fetch(options.model, transformers.AutoConfig)
    if source.kind == "text":
        pool = choose_pool(options.pool, TEXT_POOLS, "mean", "text")
        model = _model(options, config, transformers)
        _check_modality(options.model, model, "input_ids", "text")
        tokenizer = _tokenizer(options.model, transformers)
        return TextNetwork(options, model, _digest(options, config), pool, tokenizer=tokenizer)
    pool = choose_pool(options.pool, IMAGE_POOLS, "cls", "images")
    if options.max_length is not None:
        raise UsageError("--max-length is for text; images are not cut")
    model = _model(options, config, transformers)
    _check_modality(options.model, model, "pixel_values", "images")
    processor = _processor(options.model, transformers) if source.kind == "images" else None
    return VisionNetwork(options, model, _digest(options, config), pool, source=source, processor=processor)


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


def _fetch(model: str, kind: Any) -> Any:
    """Load a part of the model, from its folder or from the hub."""
    try:
        return kind.from_pretrained(model, **CLOSED)
    except ImportError as error:
        raise MissingError(f"{quoted(model)}: {_first_line(error)}") from error
    except Exception as error:  # transformers raises whatever its parts trip over
        raise _unloadable(model, error) from error


def _check_name(model: str) -> None:
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise InputError(
                f"{quoted(model)}: is no model's folder: it has no config.json; save one with save_pretrained"
            )
    elif Path(model).exists():
        raise InputError(f"{quoted(model)}: is a file; --model takes a folder, a hub id or file.py:function")
    elif model.startswith((".", "/", "~")) or model.count("/") > 1 or model.endswith("/"):
        raise InputError(f"{quoted(model)}: there is no such folder")


def _unloadable(model: str, error: Exception) -> InputError:
    reason = str(error)
    if "trust_remote_code" in reason:
        return InputError(
            f"{quoted(model)}: needs code from its repository, which is not run; give --model file.py:function"
        )
    if isinstance(error, pickle.UnpicklingError):
        return InputError(
            f"{quoted(model)}: its weights are a pickle of more than tensors; only safetensors or plain tensors are read"
        )
    if not Path(model).is_dir():
        return InputError(
            f"{quoted(model)}: is no folder here, and cannot be fetched from the Hugging Face hub ({_first_line(error)})"
        )
    return InputError(f"{quoted(model)}: cannot be loaded ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _tokenizer(model: str, transformers: Any) -> Any:
    try:
        return _fetch(model, transformers.AutoTokenizer)
    except InputError as error:
        if Path(model).is_dir() and not any(
            (Path(model) / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")
        ):
            raise InputError(f"{quoted(model)}: has no tokenizer; save one there with save_pretrained") from error
        raise


def _processor(model: str, transformers: Any) -> Any:
    if Path(model).is_dir() and not (Path(model) / "preprocessor_config.json").is_file():
        raise InputError(
            f"{quoted(model)}: has no preprocessor_config.json, so that nothing says how image files become numbers; "
            "save an image processor there, or give --arrays"
        )
    return _fetch(model, transformers.AutoImageProcessor)


def _check_modality(name: str, model: Any, wanted: str, what: str) -> None:
    """Refuse a model of something else before it fails in its own words."""
    found = getattr(model, "main_input_name", wanted)
    if found != wanted:
        kinds = {"input_ids": "text", "pixel_values": "images", "input_values": "sound", "input_features": "sound"}
        raise UsageError(f"{quoted(name)}: is a model of {kinds.get(found, found)}, not of {what}")


def _model(options: ModelOptions, config: Any, transformers: Any) -> nn.Module:
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        raise UsageError(
            f"{quoted(options.model)}: has a text and an image tower; save the one you want with save_pretrained"
        )
    # the conversion of other people's .bin files is none of our business, and would run in the background
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    try:
        if options.random_weights:
            model = transformers.AutoModel.from_config(config, **CLOSED)
        else:
            model, report = transformers.AutoModel.from_pretrained(options.model, output_loading_info=True, **CLOSED)
            _check_complete(options.model, report)
    except ImportError as error:
        raise MissingError(f"{quoted(options.model)}: {_first_line(error)}") from error
    except ContraSimError:
        raise
    except Exception as error:
        raise _unloadable(options.model, error) from error
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    model.config.use_cache = False
    result: nn.Module = model.float().eval().to(options.device)
    return result


def _check_complete(model: str, report: Mapping[str, Any]) -> None:
    """Refuse a model some of whose layers would be random numbers."""
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    wrong = [str(entry[0]) for entry in report.get("mismatched_keys", ())]
    if missing or wrong:
        name = (missing + wrong)[0]
        raise InputError(
            f"{quoted(model)}: {len(missing) + len(wrong)} weights of its architecture are missing or of another shape, first "
            f"{quoted(name)}; its config.json and its weights do not belong together"
        )


def _digest(options: ModelOptions, config: Any) -> str:
    """Digest of the files that a model is loaded from."""
    folder = _folder(options.model)
    names = sorted(path.name for path in folder.iterdir() if path.suffix in MODEL_FILES and path.is_file())
    if not any(name.endswith(".safetensors") for name in names):
        names += sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if options.random_weights:
        names = [name for name in names if not name.endswith((*PICKLED, ".safetensors"))]
    digests = [(name, file_digest(folder / name)) for name in names]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _folder(model: str) -> Path:
    from transformers.utils import cached_file

    return Path(str(cached_file(model, "config.json"))).parent


@dataclass
class _Pretrained(ABC):
    """What texts and images have in common."""

    options: ModelOptions
    model: Any
    digest: str
    pooling: str
    chosen: dict[str, int] = field(default_factory=dict, init=False)
    after_norm: bool | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return short_name(self.options.model)

    def discover(self, inputs: Inputs) -> dict[str, int]:
        output = self._forward(inputs)
        hidden = getattr(output, "hidden_states", None)
        if not hidden:
            raise InputError(
                f"{quoted(self.name)}: gives no hidden states; give --model file.py:function and choose its modules"
            )
        names = [f"hidden_{index}" for index in range(len(hidden))]
        chosen = select_layers(names, self.options.layers, where=self.name)
        self.chosen = {name: names.index(name) for name in chosen}
        last = getattr(output, "last_hidden_state", None)
        if last is not None:
            self.after_norm = last.shape == hidden[-1].shape and torch.equal(last, hidden[-1])
        self._check(hidden, inputs)
        return {name: tensor.shape[1] for name, tensor in self._pooled(hidden, inputs).items()}

    def rows(self, inputs: Inputs) -> dict[str, Tensor]:
        return self._pooled(self._forward(inputs).hidden_states, inputs)

    def about(self) -> dict[str, Any]:
        return {"last_layer_after_final_norm": self.after_norm, "architecture": type(self.model).__name__}

    @torch.inference_mode()
    def _forward(self, inputs: Inputs) -> Any:
        return self.model(**to_device(inputs, self.options.device), output_hidden_states=True, return_dict=True)

    def _pooled(self, hidden: Sequence[Tensor], inputs: Inputs) -> dict[str, Tensor]:
        return {name: self._pool(hidden[index], inputs) for name, index in self.chosen.items()}

    @abstractmethod
    def _pool(self, states: Tensor, inputs: Inputs) -> Tensor:
        """One row [items, width] per item."""

    def _check(self, hidden: Sequence[Tensor], inputs: Inputs) -> None:  # noqa: B027  (most have nothing to check)
        pass


@dataclass
class Tokens:
    """A block of tokenised texts. Batches are padded on the right, whatever side the tokenizer prefers.

    On the left, models that count positions from the start of the batch would see every text shifted.
    """

    ids: list[list[int]]
    types: list[list[int]] | None
    pad: int
    truncated: int

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.ids]

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        ids = [self.ids[row] for row in rows]
        inputs = {"input_ids": _padded(ids, self.pad), "attention_mask": _padded([[1] * len(row) for row in ids], 0)}
        if self.types is not None:
            inputs["token_type_ids"] = _padded([self.types[row] for row in rows], 0)
        return inputs


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    out = torch.full((len(rows), max(map(len, rows))), value, dtype=torch.long)
    for place, row in zip(out, rows, strict=True):
        place[: len(row)] = torch.tensor(row, dtype=torch.long)
    return out


@dataclass
class TextNetwork(_Pretrained):
    """An encoder or decoder of text, with its tokenizer."""

    tokenizer: Any = None

    def __post_init__(self) -> None:
        self.limit = token_limit(self.tokenizer, self.model, self.options.max_length)
        self.vocabulary = getattr(self.model.get_input_embeddings(), "num_embeddings", None)
        # padding is masked, so that any token will do where there is none for it
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        self.pad = next(number for number in candidates if number is not None)

    def prepare(self, items: Sequence[str], first: int) -> Tokens:
        encoded = self.tokenizer(list(items), verbose=False, return_attention_mask=False)
        ids, types = encoded["input_ids"], encoded.get("token_type_ids")
        long = [row for row, tokens in enumerate(ids) if self.limit is not None and len(tokens) > self.limit]
        if long:
            cut = self.tokenizer(
                [items[row] for row in long], truncation=True, max_length=self.limit, return_attention_mask=False
            )
            for place, row in enumerate(long):
                ids[row] = cut["input_ids"][place]
                if types is not None:
                    types[row] = cut["token_type_ids"][place]
        self._check_tokens(ids, first)
        return Tokens(ids, types, self.pad, len(long))

    def about(self) -> dict[str, Any]:
        return super().about() | {"token_limit": self.limit}

    def _check_tokens(self, ids: Sequence[Sequence[int]], first: int) -> None:
        for row, tokens in enumerate(ids, first):
            if not tokens:
                raise InputError(
                    f"row {row} has no tokens: the text is empty for {quoted(self.name)}; take the row out"
                )
            if self.vocabulary is not None and max(tokens) >= self.vocabulary:
                raise InputError(
                    f"{quoted(self.name)}: the tokenizer gives token {max(tokens)} where the model has {self.vocabulary}; "
                    "tokenizer and model do not belong together"
                )

    def _pool(self, states: Tensor, inputs: Inputs) -> Tensor:
        return pool_tokens(states, inputs["attention_mask"].to(states.device), self.pooling)

    def _check(self, hidden: Sequence[Tensor], inputs: Inputs) -> None:
        if self.pooling == "cls" and self.tokenizer.cls_token_id is None:
            log.warning("%s has no CLS token: --pool cls takes the first token of every text", self.name)


def token_limit(tokenizer: Any, model: nn.Module, asked: int | None) -> int | None:
    """How many tokens the model takes, or the fewer that were asked for; None where nothing limits them.

    Raises:
        UsageError: more were asked for than the model takes, or no more than its special tokens.
    """
    known = (tokenizer.model_max_length, _positions(model))
    limit = min((number for number in known if number is not None and 0 < number < UNLIMITED), default=None)
    if asked is None:
        return limit
    if limit is not None and asked > limit:
        raise UsageError(f"--max-length {asked}: the model takes {limit} tokens at most")
    special = tokenizer.num_special_tokens_to_add()
    if asked <= special:
        raise UsageError(f"--max-length {asked}: the {special} special tokens alone leave no room for text")
    return asked


def _positions(model: nn.Module) -> int | None:
    found: int | None = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            # RoBERTa's kind: positions start behind that of the padding
            return module.num_embeddings - module.padding_idx - 1
    return found


@dataclass
class Pixels:
    """A block of images: an array [n, channels, height, width], or files for the image processor."""

    network: "VisionNetwork"
    items: Items
    truncated: int = 0

    @property
    def lengths(self) -> list[int]:
        return [1] * len(self.items)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        if self.network.processor is None:
            return {"pixel_values": _pixels(np.asarray(self.items[rows]))}
        images = [open_image(self.items[row], self.network.channels) for row in rows]
        pixels: Tensor = self.network.processor(images=images, return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels}


def _pixels(array: npt.NDArray[Any]) -> Tensor:
    if array.ndim == 3:
        array = array[:, None]
    return torch.from_numpy(array.astype(np.float32))


@dataclass
class VisionNetwork(_Pretrained):
    """An encoder of images, with its image processor where files are read."""

    source: Source | None = None
    processor: Any = None
    extra: int = field(default=0, init=False)

    @property
    def channels(self) -> int | None:
        found = getattr(self.model.config, "num_channels", None)
        return found if isinstance(found, int) else None

    def prepare(self, items: Items, first: int) -> Pixels:
        return Pixels(self, items)

    def discover(self, inputs: Inputs) -> dict[str, int]:
        pixels = inputs["pixel_values"]
        if pixels.ndim != 4:
            raise MismatchError(
                f"{self._where}: a row is {shapes([pixels])}; {quoted(self.name)} takes [channels, height, width]"
            )
        if self.channels is not None and pixels.shape[1] != self.channels:
            raise MismatchError(
                f"{self._where}: images have {pixels.shape[1]} channels, {quoted(self.name)} takes {self.channels}"
            )
        return super().discover(inputs)

    @property
    def _where(self) -> str:
        return quoted(self.source.name) if self.source else "input"

    def _forward(self, inputs: Inputs) -> Any:
        try:
            return super()._forward(inputs)
        except (ValueError, TypeError) as error:
            raise MismatchError(
                f"{self._where}: {quoted(self.name)} does not take images {shapes(inputs.values())} ({_first_line(error)})"
            ) from error

    def _check(self, hidden: Sequence[Tensor], inputs: Inputs) -> None:
        if hidden[0].ndim == 3:
            self.extra = hidden[0].shape[1] - self._patches(inputs["pixel_values"])
        if self.pooling == "cls" and self.extra < 1:
            raise UsageError(f"{quoted(self.name)} has no CLS token; give --pool patch-mean")

    def _patches(self, pixels: Tensor) -> int:
        size = getattr(self.model.config, "patch_size", None)
        if size is None:
            raise InputError(
                f"{quoted(self.name)}: its config.json has no patch_size, so that its patches cannot be told apart"
            )
        height, width = (size, size) if isinstance(size, int) else size
        return (pixels.shape[2] // height) * (pixels.shape[3] // width)

    def _pool(self, states: Tensor, inputs: Inputs) -> Tensor:
        return spatial_mean(states) if states.ndim == 4 else pool_patches(states, self.extra, self.pooling)
