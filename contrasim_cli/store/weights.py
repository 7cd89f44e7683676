"""Files of weights, which are matrices too, told apart from activations: of Keras and TensorFlow, and state dicts of torch."""

from collections.abc import Iterable
from pathlib import Path

from contrasim_cli.errors import InputError
from contrasim_cli.names import quoted

KERAS = {"keras_version", "model_config", "layer_names"}  # attributes of the file, of all versions but the third
PARAMETERS = {
    "weight", "bias", "kernel", "gamma", "beta", "running_mean", "running_var", "moving_mean", "moving_variance",
    "in_proj_weight", "in_proj_bias", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0",
}  # fmt: skip


def refuse_weights(path: Path, names: Iterable[str], attributes: Iterable[str] = ()) -> None:
    """Refuse a file whose attributes, or at least half of whose arrays, are those of a model's parameters.

    Raises:
        InputError: it is one.
    """
    known = [_is_parameter(name) for name in names]
    if KERAS & set(attributes) or (known and 2 * sum(known) >= len(known)):
        raise InputError(
            f"{quoted(path)}: holds the weights of a model, not activations; run the model, and save what its layers return "
            "(contrasim extract --model does so)"
        )


def _is_parameter(name: str) -> bool:
    """Whether an array is called as parameters are: `conv.weight`, `dense/kernel:0`, `layers/dense/vars/0`."""
    levels = name.replace("/", ".").split(".")
    keras = levels[-2:-1] == ["vars"] and levels[-1].isdigit()
    return keras or (len(levels) > 1 and levels[-1].partition(":")[0] in PARAMETERS)
