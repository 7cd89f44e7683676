"""Adapters of peft: folders with `adapter_config.json`, whose weights change modules of a base model where they are.

The weights go into the base model itself, without the head that an adapter may have been trained with: hidden states do not depend
on it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from contrasim_cli.errors import ContraSimError, InputError, MissingError, out_of_memory, reason
from contrasim_cli.extraction.sources.source import file_digest
from contrasim_cli.names import quoted

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WRAPPED = "base_model.model."  # before the names of weights: those of the wrapper


@dataclass(frozen=True)
class Adapter:
    """A folder of an adapter, and the folder or hub id of its base model."""

    folder: Path
    base: str
    revision: str | None

    def digest(self, base: str) -> str:
        """Digest of the base model's and of the adapter's files."""
        files = " ".join(file_digest(self.folder / name) for name in (CONFIG, WEIGHTS))
        return hashlib.sha256(f"{base} {files}".encode()).hexdigest()


def adapter_of(folder: Path) -> Adapter | None:
    """What an adapter's folder says; None for other folders.

    Raises:
        InputError: its configuration names no base model, or its weights are not there as safetensors.
    """
    if not (folder / CONFIG).is_file():
        return None
    try:
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{quoted(folder / CONFIG)}: cannot be read ({reason(error)})") from error
    base = said.get("base_model_name_or_path") if isinstance(said, dict) else None
    if not isinstance(base, str) or not base:
        raise InputError(
            f"{quoted(folder / CONFIG)}: does not say which model it adapts; write base_model_name_or_path there"
        )
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{quoted(folder)}: has no {WEIGHTS}; save the adapter as safetensors")
    if base.startswith((".", "/", "~")) and not Path(base).is_dir():
        raise InputError(
            f"{quoted(folder)}: adapts {quoted(base)}, and there is no such folder; write where it is into {CONFIG} "
            "(base_model_name_or_path)"
        )
    return Adapter(folder, base, said.get("revision"))


def adapted(model: Any, adapter: Adapter) -> Any:
    """The base model with the weights of its adapter.

    Raises:
        MissingError: peft is not installed.
        InputError: the adapter is of a kind that adds tokens, or does not fit the model.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingError(
            f"{quoted(adapter.folder)}: is an adapter of peft, and needs the extra peft: pip install 'contrasim[peft]'"
        ) from error
    try:
        return _filled(model, adapter, peft)
    except Exception as error:  # peft raises whatever its parts trip over
        if isinstance(error, ContraSimError) or out_of_memory(error):
            raise
        raise _unfit(adapter, f"{type(error).__name__}: {reason(error)}") from error


def _filled(model: Any, adapter: Adapter, peft: Any) -> Any:
    from safetensors.torch import load_file

    config = peft.PeftConfig.from_pretrained(str(adapter.folder))
    if config.is_prompt_learning:
        raise InputError(
            f"{quoted(adapter.folder)}: its adapter puts tokens before the text, so that states are not those of the text alone; "
            "only adapters of modules (LoRA and its like) are read"
        )
    config.task_type, config.inference_mode = None, True  # a head is no part of the base model
    wrapped = peft.get_peft_model(model, config)
    weights = _renamed(load_file(adapter.folder / WEIGHTS), model)
    wanted = set(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    if lost := sorted(wanted - set(weights)):
        raise _unfit(adapter, f"it holds no {lost[0]}")
    heads = {name for name in set(weights) - wanted if not hasattr(model, _first_part(name))}
    if extra := sorted(set(weights) - wanted - heads - _whole_layers(weights, model)):
        raise _unfit(adapter, f"the model has no {extra[0]}")
    peft.set_peft_model_state_dict(wrapped, {name: one for name, one in weights.items() if name not in heads})
    return wrapped.get_base_model()


def _renamed(weights: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The weights by the names that they have without a head around the model."""
    prefix = model.base_model_prefix
    if not prefix or hasattr(model, prefix):
        return dict(weights)
    return {WRAPPED + name.removeprefix(WRAPPED).removeprefix(f"{prefix}."): one for name, one in weights.items()}


def _first_part(name: str) -> str:
    return name.removeprefix(WRAPPED).partition(".")[0]


def _whole_layers(weights: Mapping[str, Tensor], model: Any) -> set[str]:
    """Weights of the model itself that were saved beside the adapter, such as embeddings of new tokens."""
    own = set(model.state_dict())
    return {name for name in weights if name.removeprefix(WRAPPED) in own}


def _unfit(adapter: Adapter, why: str) -> InputError:
    return InputError(f"{quoted(adapter.folder)}: its adapter does not fit its base {quoted(adapter.base)} ({why})")
