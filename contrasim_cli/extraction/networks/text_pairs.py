"""Decoders that read another text than their encoder: rows are of the decoder's tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.network import Inputs
from contrasim_cli.extraction.networks.parts import CONTEXT
from contrasim_cli.extraction.networks.probe import Probe
from contrasim_cli.extraction.networks.text import TextNetwork, Tokens
from contrasim_cli.names import quoted


@dataclass
class Pairs:
    """A block of texts of the decoder, and of those that their encoder reads."""

    tokens: Tokens
    contexts: Tokens

    @property
    def cut(self) -> list[int]:
        """The positions of the pairs of which a text was cut."""
        return sorted({*self.tokens.cut, *self.contexts.cut})

    @property
    def truncated(self) -> int:
        """How many pairs those are."""
        return len(self.cut)

    @property
    def unknown(self) -> list[tuple[int, int]] | None:
        """The unknown tokens among those of the decoder, of which rows are made."""
        return self.tokens.unknown

    @property
    def lengths(self) -> list[int]:
        """Equal where both texts of two pairs are equally long."""
        most = max(self.contexts.lengths, default=0) + 1
        return [
            length * most + context for length, context in zip(self.tokens.lengths, self.contexts.lengths, strict=True)
        ]

    @property
    def units(self) -> list[list[str]] | None:
        """The names of the rows of each text of the decoder."""
        return self.tokens.units

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The inputs of both sides."""
        return joined(self.tokens.batch(rows), self.contexts.batch(rows))


class PairNetwork(TextNetwork):
    """A decoder that reads one text beside another, which its encoder has read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        options = self.options
        if options.span or options.position or options.template:
            raise UsageError("--decoder-text does not go with --span, --position and --template; leave it out")
        if not self.part.is_second:
            raise UsageError(
                f"--decoder-text: {quoted(self.name)} has no decoder beside an encoder of text; leave it out"
            )

    def prepare(self, items: Sequence[tuple[str, str]], first: int) -> Pairs:  # type: ignore[override]
        """Tokenise texts of the decoder, each with that of the encoder."""
        contexts = super().prepare([context for _, context in items], first)
        contexts.spans = None  # rows are of the decoder's tokens alone
        return Pairs(super().prepare([text for text, _ in items], first), contexts)

    def _given(self, inputs: Inputs) -> Inputs:
        own, context = _parted(inputs)
        return joined(super()._given(own), super()._given(context))

    def _probes(self, inputs: Inputs) -> Mapping[str, Probe]:
        own, context = (super(PairNetwork, self)._probes(side) for side in _parted(inputs))
        return {way: _beside(probe, context[way]) for way, probe in own.items()}

    def _made_up(self) -> dict[str, Tensor]:
        return joined(super()._made_up(), super()._made_up())


def joined(own: Inputs, context: Inputs) -> dict[str, Tensor]:
    """The inputs of the decoder, and those of the encoder under names of their own."""
    return {**own, **{f"{CONTEXT}{name}": tensor for name, tensor in context.items()}}


def _parted(inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    own = {name: tensor for name, tensor in inputs.items() if not name.startswith(CONTEXT)}
    return own, {name.removeprefix(CONTEXT): tensor for name, tensor in inputs.items() if name.startswith(CONTEXT)}


def _beside(probe: Probe, context: Probe) -> Probe:
    (items, together), (others, both) = probe, context
    return [joined(*pair) for pair in zip(items, others, strict=True)], joined(together, both)
