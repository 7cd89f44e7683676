"""A module of the user's, and the tokenizer or processor of transformers that makes its inputs.

A model of transformers has the layers of its kind, `hidden_0` to `hidden_L`; of any other module layers are submodules. Inputs go
in by the names that the tokenizer or feature extractor gives them, or, where the module does not know these, the first alone.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.audio import AudioNetwork
from contrasim_cli.extraction.networks.hooks import default_layers
from contrasim_cli.extraction.networks.huggingface import image_pool, sound_pool, text_pool
from contrasim_cli.extraction.networks.network import Inputs, ModelOptions
from contrasim_cli.extraction.networks.parts import TOKENS, Part, take_part
from contrasim_cli.extraction.networks.pretrained import Pretrained
from contrasim_cli.extraction.networks.text import TextNetwork
from contrasim_cli.extraction.networks.text_pairs import PairNetwork
from contrasim_cli.extraction.networks.vision import VisionNetwork
from contrasim_cli.extraction.sources.source import Source
from contrasim_cli.names import quoted

MEMBERS = {
    "text": "tokenizer",
    "images": "image_processor",
    "audio": "feature_extractor",
}  # of a processor, by kind of source
NAMES = {"text": "tokenizer", "images": "image processor", "audio": "feature extractor"}


def is_processor(made: Any) -> bool:
    """Whether it is a tokenizer or processor of transformers, and not just a function."""
    return bool(_kinds(made))


def member_for(processor: Any, kind: str, where: str) -> Any:
    """The tokenizer, image processor or feature extractor of a processor, which may be one itself.

    Raises:
        UsageError: it has none for this kind of source.
    """
    kinds = _kinds(processor)
    if kind not in kinds:
        has = " and ".join(NAMES[one] for one in kinds)
        raise UsageError(
            f"{quoted(where)}: returned a module and its {has}, which takes no --{kind}; return its {NAMES[kind]}"
        )
    return kinds[kind]


def _kinds(made: Any) -> dict[str, Any]:
    """What takes each kind of source."""
    transformers = sys.modules.get("transformers")
    if transformers is None:  # which made it, if it did
        return {}
    if isinstance(made, transformers.ProcessorMixin):
        return {kind: part for kind, name in MEMBERS.items() if (part := getattr(made, name, None)) is not None}
    bases = {
        "text": transformers.PreTrainedTokenizerBase, "images": transformers.ImageProcessingMixin,
        "audio": transformers.FeatureExtractionMixin,
    }  # fmt: skip
    return {kind: made for kind, base in bases.items() if isinstance(made, base)}


def is_pretrained(module: Any) -> bool:
    """Whether it is a model of transformers."""
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(module, transformers.PreTrainedModel)


def first_kind(processor: Any) -> str:
    """The kind of source that a processor takes, where there is no source to say it."""
    return next(iter(_kinds(processor)))


def processor_state(processor: Any) -> str:
    """All that the inputs depend on, as text."""
    parts = _kinds(processor)
    return json.dumps([_state(part) for part in parts.values()])


def _state(part: Any) -> str:
    if not hasattr(part, "get_vocab"):
        return str(part.to_json_string())
    backend = getattr(part, "backend_tokenizer", None)
    pieces = json.dumps(part.get_vocab(), sort_keys=True) if backend is None else str(backend.to_str())
    sides = part.model_max_length, part.truncation_side
    return json.dumps([pieces, part.special_tokens_map, part.chat_template, *sides], sort_keys=True, default=str)


def load_processed(
    options: ModelOptions, name: str, module: nn.Module, processor: Any, digest: str, source: Source | None
) -> TextNetwork | VisionNetwork | AudioNetwork:
    """The network of a module that gets what a tokenizer or processor returns; the store calls it `name`.

    Raises:
        UsageError: it does not take this kind of source, or options are not for it.
    """
    kind = source.kind if source else first_kind(processor)
    options = replace(options, model=name)
    member = None if kind == "arrays" else member_for(processor, kind, name)
    if not is_pretrained(module):
        return _plain(options, module, member, digest, source)
    module.config.use_cache = False  # type: ignore[union-attr]
    part = take_part(module, options.part, kind, name)
    if kind in ("images", "arrays"):
        return VisionNetwork(options, part, digest, image_pool(options), source=source, processor=member)
    reads = TextNetwork if options.decoder_text is None else PairNetwork
    return _of_kind(options, part, digest, member, source, (reads, AudioNetwork))


def _plain(
    options: ModelOptions, module: nn.Module, member: Any, digest: str, source: Source | None
) -> TextNetwork | AudioNetwork:
    if options.part is not None or options.decoder_text is not None:
        raise UsageError(f"--part is for models of transformers; {quoted(options.model)} returns a module of one part")
    if not hasattr(module, "config"):
        module.config = SimpleNamespace()  # type: ignore[assignment]
    part = Called(module, module, main=member.model_input_names[0])
    return _of_kind(options, part, digest, member, source, (_ModuleOfTexts, _ModuleOfSounds))


def _of_kind(
    options: ModelOptions,
    part: Part,
    digest: str,
    member: Any,
    source: Source | None,
    kinds: tuple[type[TextNetwork], type[AudioNetwork]],
) -> TextNetwork | AudioNetwork:
    """The network of texts, or that of sounds, by what makes the inputs."""
    reads, hears = kinds
    if "text" in _kinds(member):
        kept_words = source.words if source else {}
        return reads(options, part, digest, text_pool(options), tokenizer=member, kept_words=kept_words)
    return hears(options, part, digest, sound_pool(options), source=source, extractor=member)


@dataclass(frozen=True)
class Called(Part):
    """A module that knows nothing of hidden states, called by the names of its inputs, or else with the `main` one."""

    main: str = TOKENS

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The names of what goes in."""
        found = super().parameters
        return found if self.main in found else {self.main: None}

    def run(self, given: Mapping[str, Tensor]) -> Any:
        """What the module puts out for its inputs."""
        return self.model(**given) if self.main in super().parameters else self.model(given[self.main])

    def states(self, output: Any) -> tuple[Tensor, ...]:
        """None: its layers are submodules."""
        return ()


class _Submodules(Pretrained):
    """A network without hidden states."""

    def _states(self, output: Any, inputs: Inputs) -> dict[str, Tensor]:
        return {}

    def _default(self, states: Iterable[str]) -> Iterable[str]:
        return default_layers(self.model)

    def _is_normed(self, inputs: Inputs) -> bool:
        return False


class _ModuleOfTexts(_Submodules, TextNetwork):
    pass


class _ModuleOfSounds(_Submodules, AudioNetwork):
    pass
