"""One side of a model of texts and images: CLIP, SigLIP and their like.

Besides its hidden states a tower has the layer `projected`: its output in the space that both sides share, as
`get_text_features` and `get_image_features` give it, not normalised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted

PROJECTED = "projected"
TOWERS = {"text": ("text_model", "text_projection"), "image": ("vision_model", "visual_projection")}
INPUTS = {"text": "--text", "image": "--images or --arrays"}


@dataclass(frozen=True)
class Tower:
    """A model with one kind of input.

    `project` takes what it puts out to the shared space, where there is one. `unsaved` are the weights that its files
    do not hold, and which are random numbers.
    """

    model: nn.Module
    name: str | None = None
    project: Callable[[Any], Tensor] | None = None
    unsaved: Sequence[str] = ()


def has_towers(config: Any) -> bool:
    """Whether a model takes texts and images."""
    return hasattr(config, "text_config") and hasattr(config, "vision_config")


def choose_tower(asked: str | None, kind: str | None, config: Any, where: str) -> str | None:
    """The tower asked for, or the one that fits the data; None for a model without towers.

    Raises:
        UsageError: the model has none, the data are for the other one, or there is nothing to choose by.
    """
    if not has_towers(config):
        if asked is not None:
            raise UsageError(f"--tower {asked}: {quoted(where)} is a model of one kind of input; leave --tower out")
        return None
    fitting = None if kind is None else "text" if kind == "text" else "image"
    if asked is None and fitting is None:
        raise UsageError(
            f"{quoted(where)}: has a text and an image tower; choose one with --tower text or --tower image"
        )
    if asked is not None and fitting is not None and asked != fitting:
        raise UsageError(f"--tower {asked} takes {INPUTS[asked]}, not --{kind}; leave --tower out or change the data")
    return asked or fitting


def take_tower(model: Any, name: str | None, where: str, unsaved: Sequence[str] = ()) -> Tower:
    """The tower of a model, or the model itself where it has none."""
    if name is None:
        return Tower(model, unsaved=unsaved)
    body, head = TOWERS[name]
    tower, projection = getattr(model, body, None), getattr(model, head, None)
    if tower is None:
        raise UsageError(
            f"{quoted(where)}: {type(model).__name__} is not made of two towers; of such models CLIP's and SigLIP's kind is read"
        )
    return Tower(tower, name, lambda output: _projected(output, projection))


def _projected(output: Any, projection: nn.Module | None) -> Tensor:
    pooled: Tensor = output.pooler_output
    return pooled if projection is None else projection(pooled)
