"""How a file of somebody else's is to be read, where the file cannot tell: the options of `extract --from`."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """What was said of a file.

    `axes`: a word per axis of its arrays; `keys`: whether its keys are layers or rows; `ids_key`: which of them names the rows;
    `read_as`: the type that integers stand for; `layers`: the patterns of layers that are asked for; `budget`: bytes that
    what is held may take, None for half of what is free.
    """

    axes: str | None = None
    keys: str = "layers"
    ids_key: str | None = None
    read_as: str | None = None
    layers: Sequence[str] | None = None
    budget: int | None = None
