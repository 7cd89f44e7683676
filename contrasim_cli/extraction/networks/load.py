"""Which kind of network `--model` names."""

import re
from pathlib import Path

import torch

from contrasim_cli.errors import InputError, UsageError
from contrasim_cli.extraction.networks.network import ModelOptions, Network
from contrasim_cli.extraction.sources.source import Source
from contrasim_cli.names import quoted


def load(options: ModelOptions, source: Source | None) -> Network:
    """The model that `--model` names: a function's, else Hugging Face's.

    A function is `file.py:function` or `package.module:function`. Without a source, `layer_widths` says what its layers are.

    Raises:
        UsageError: the model does not take this kind of input, pooling or length.
        InputError: it cannot be loaded.
        MissingError: Hugging Face's libraries are not installed.
    """
    torch.manual_seed(options.seed)
    if is_factory(options.model):
        from contrasim_cli.extraction.networks.factory import load_factory

        return load_factory(options, source)
    if options.model_arg:
        raise UsageError(f"--model-arg is for --model file.py:function; {quoted(options.model)} takes no arguments")
    if Path(options.model).exists() and not Path(options.model).is_dir():
        raise InputError(
            f"{quoted(options.model)}: is a file, and a file of a model (TorchScript, torch.export, a pickle) can run code; "
            "load it in a function of your own, --model file.py:function, or give a folder or hub id of Hugging Face"
        )
    from contrasim_cli.extraction.networks.huggingface import load_pretrained

    return load_pretrained(options, source)


def layer_widths(network: Network) -> dict[str, str]:
    """The chosen layers and the shapes of their rows, such as `[rows, 384]`; needs no data.

    Raises:
        UsageError: the model does not say what it takes; with data, its layers can be found.
    """
    return network.widths()


def is_factory(model: str) -> bool:
    """Whether the text is `file.py:function` or `package.module:function`."""
    return not Path(model).exists() and re.fullmatch(r"(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_][\w.]*", model) is not None
