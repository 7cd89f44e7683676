"""What determines the rows of a store, so that `--resume` goes on with the same rows or refuses."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from contrasim_cli.errors import ContraSimError, OutputExistsError
from contrasim_cli.extraction import shards as parts
from contrasim_cli.extraction.networks.network import ModelOptions, Network, short_name
from contrasim_cli.extraction.sources.source import Source
from contrasim_cli.names import quoted
from contrasim_cli.output_files import sweep
from contrasim_cli.store import open_store
from contrasim_cli.version import __version__

log = logging.getLogger(__name__)

# which make files into numbers, by kind of source
READERS = {"audio": ("soundfile", "soxr"), "images": ("pillow", "torchvision")}


def configuration(
    network: Network,
    source: Source,
    model: ModelOptions,
    store_dtype: str,
    attrs: Mapping[str, str],
    layers: Sequence[str],
) -> dict[str, Any]:
    """The configuration: everything that determines the rows of the store."""
    return {
        "model": network.name,
        "model_digest": network.digest,
        "revision": model.revision,
        "tokenizer": short_name(model.tokenizer) if model.tokenizer else None,
        "part": model.part,
        **({"decoder_text": model.decoder_text} if model.decoder_text else {}),
        **({"model_arguments": model.model_arguments} if model.model_arg else {}),
        "prepared_by": network.prepared_by,
        "random_weights": model.random_weights,
        "seed": model.seed if model.random_weights else None,
        "input": source.name,
        "input_digest": source.contents,
        "column": source.column,
        "rows": source.n_rows,
        "ids_digest": digest_of_ids(source.ids()),
        "unit": model.unit,
        "subword": model.subword if model.unit == "word" else None,
        "pool": network.pooling,
        "special_tokens": model.special_tokens,
        "position": list(model.position or ()),
        "template": model.template,
        "generation_prompt": model.generation_prompt,
        **source.settings,
        **({"words": digest_of_ids(_words(source))} if source.words else {}),
        "layers": list(layers),
        "hook": model.hook,
        "max_length": model.max_length,
        "dtype": model.dtype,
        "weights_dtype": model.weights_dtype,
        "store_dtype": store_dtype,
        "attributes": dict(attrs),
        "versions": versions(READERS.get(source.kind, ())),
    }


def _words(source: Source) -> Iterator[str]:
    return (f"{position}:{word}" for position, words in source.words.items() for word in sorted(words))


def digest_of_ids(ids: Iterable[str]) -> str:
    """One digest of all names in order."""
    digest = hashlib.sha256()
    for name in ids:
        digest.update(f"{len(name)} {name}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def versions(others: Sequence[str] = ()) -> dict[str, str]:
    """The libraries that have a part in the values, with `others` that only some inputs need."""
    found = {"contrasim": __version__, "torch": torch.__version__}
    for name in ("transformers", *others):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def provenance_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What every store that was made here says about how."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return {"config": config, "config_digest": digest}


def finished(output: Path, config: Mapping[str, Any], force: bool) -> bool:
    """Whether the output is there and was made with the same configuration.

    Raises:
        OutputExistsError: it is there, was made otherwise, and may not be replaced.
    """
    if not output.exists():
        return False
    try:
        store = open_store(output)
        found = store.provenance.get("config", {})
        store.close()
    except ContraSimError:
        found = {}
    if found == json.loads(json.dumps(config)):
        log.info("%s is complete already", quoted(output))
        parts.remove(output)
        sweep(output)
        return True
    if not force:
        reason = parts.difference(found, config) if found else "it says not how it was made"
        raise OutputExistsError(f"{quoted(output)}: already exists and differs ({reason}); give --force to replace it")
    return False
