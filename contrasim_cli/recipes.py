"""Recipes: what an encoder is trained by where an option does not say otherwise. Light, for the command line's sake."""

from collections.abc import Mapping
from typing import Any

PAPER: dict[str, Any] = {
    "objective": "contrasim",
    "similarity": "dot",
    "start": "random",
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
# Many short steps with a falling rate get further, in less time, than few long ones.
_DEFAULT = PAPER | {"schedule": "cosine", "warmup": 0.1}

LEAST_STEPS = 320  # where rows are few, so many steps make more epochs

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {"layers": PAPER | {"epochs": 50}, "pairs": PAPER | {"epochs": 30}},
    "default": {
        # what a layer's rows share, their mean, tells layers apart on other data too, so that it stays; the first layer starts by
        # whitening rows, in which layers lie apart from the first step. `dot` is flat where all outputs are alike, `norm` is not.
        "layers": _DEFAULT
        | {"similarity": "norm", "start": "whitened", "temperature": 0.2}
        | {"batch_size": 64, "epochs": 5, "least_steps": LEAST_STEPS},
        # an MLP learns the two views by heart; a linear map that starts as the identity carries over to others, the more so
        # where all other rows count and not only the nearest
        "pairs": _DEFAULT
        | {"standardize": "auto", "path": "linear", "output": 0, "objective": "supcon", "temperature": 0.2}
        | {"batch_size": 256, "epochs": 10},
    },
}

# What stands instead in an encoder of anchored rows, which centring has no part in, and which serves models it never saw: the
# more models there are, copies among them, the less it learns its own by heart. What it comes to depends on which rows are
# anchors more than on anything else, so that several draws are better than one.
ANCHORED: dict[str, dict[str, Any]] = {
    "layers": {"objective": "supcon", "batch_size": 32, "epochs": 3, "copies": 1, "members": 3},
    "pairs": {"objective": "supcon", "batch_size": 256, "epochs": 5, "copies": 0, "temperature": 0.07},
}
_ANCHORED: dict[str, Any] = {
    "similarity": "dot",
    "start": "random",
    "temperature": 0.07,
    "standardize": "none",
    "path": "mlp",
    "output": 128,
    "n_anchors": 128,
    "least_steps": 0,
}
WITHOUT_NEGATIVES = frozenset({"deepdot", "deepcka"})

# An encoder of measures: a small network over grids, of which there are as many as pairs of stores.
MEASURED: dict[str, Any] = {
    "objective": "supcon",
    "similarity": "dot",
    "standardize": "none",
    "shrinkage": 0.01,
    "path": "mlp",
    "output": 1,
    "hidden": (32, 32),
    "optimizer": "adamw",
    "weight_decay": 0.02,
    "schedule": "cosine",
    "warmup": 0.1,
    "temperature": 1.0,
    "validation": 0.0,
    "patience": 0,
    "batch_size": 32,
    "epochs": 10,
    "epoch_steps": 100,
    "members": 4,
}

# From random weights, and from those of an encoder that knows many kinds of models: few models of one's own may move these a little
# only, or more is forgotten than learned.
MEASURED_LR, TUNED_LR = 2e-3, 1e-4

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
    parts = MEASURED if given.get("inputs") == "measures" else RECIPES[recipe][task]
    if given.get("inputs") == "anchors":
        parts = parts | _ANCHORED | ({"copies": 0} if recipe == "paper" else ANCHORED[task])
    if given.get("objective") in WITHOUT_NEGATIVES:
        parts = parts | {"similarity": "dot"}
    if given.get("epochs") is not None:
        parts = parts | {"least_steps": 0}
    found = parts | {name: value for name, value in given.items() if value is not None}
    return found if given.get("members") or averages(found) else found | {"members": 1}


def averages(parts: Mapping[str, Any]) -> bool:
    """Whether the similarity of outputs side by side is the mean of the members': that of dot products is."""
    return bool(parts["similarity"] == "dot" and parts["objective"] != "deepcka")
