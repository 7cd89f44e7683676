"""The curves of a training run."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from contrasim_cli.plots import page


def curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss and, where rows were held out, accuracy over the epochs of a run."""
    accuracy = history.get("validation_accuracy")
    panels = 2 if accuracy else 1
    figure = Figure(figsize=(page.PAGE * panels / 2, 2.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _curve(axes[0], history["loss"])
    axes[0].set_ylabel("mean loss of a step")
    if accuracy:
        _curve(axes[1], [100 * value for value in accuracy])
        axes[1].set_ylabel("accuracy in % on held-out rows")
        axes[1].set_ylim(-2, 104)
    for ax in axes:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _curve(ax: Any, values: Sequence[float]) -> None:
    ax.plot(range(1, 1 + len(values)), values, color="black", marker="o", markersize=3, linewidth=1.2)
