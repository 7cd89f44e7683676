"""Recipes: what an encoder is trained by where an option does not say otherwise. Light, for the command line's sake."""

from collections.abc import Mapping
from typing import Any

PAPER: dict[str, Any] = {
    "objective": "contrasim",
    "standardize": "none",
    "shrinkage": 0.01,
    "path": "mlp",
    "output": 128,
    "optimizer": "adam",
    "lr": 1e-3,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
    "temperature": 0.07,
    "validation": 0.0,
    "patience": 0,
    "batch_size": 1024,
}
# Rows of any network share a large mean, so that without centring the first steps, or the whole run, go into taking it away.
# Many short steps with a falling rate get further, in less time, than few long ones.
_DEFAULT = PAPER | {"standardize": "center", "schedule": "cosine", "warmup": 0.1}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {"layers": PAPER | {"epochs": 50}, "pairs": PAPER | {"epochs": 30}},
    "default": {
        "layers": _DEFAULT | {"batch_size": 64, "epochs": 20},
        # an MLP learns the two views by heart; a linear map that starts as the identity carries over to others
        "pairs": _DEFAULT
        | {"standardize": "auto", "path": "linear", "output": 0, "objective": "supcon"}
        | {"batch_size": 256, "epochs": 10},
    },
}

# What benchmarks train, by the paper's names: the objective, and the similarity of encoded rows.
OBJECTIVES: dict[str, tuple[str, str]] = {
    "contrasim": ("contrasim", "dot"),
    "contrasim_norm": ("contrasim", "norm"),
    "supcon": ("supcon", "dot"),
    "supcon_norm": ("supcon", "norm"),
    "deepdot": ("deepdot", "dot"),
    "deepcka": ("deepcka", "dot"),
}


def chosen(recipe: str, task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's parts for a task, with what was given (is not None) instead of them and beside them."""
    return RECIPES[recipe][task] | {name: value for name, value in given.items() if value is not None}
