"""Training an encoder: one loop for every objective and task.

Task `layers`: a step takes a batch of rows through every layer of every model; items are (model, layer).
Task `pairs`: a step takes a batch of rows through one layer of both views; items are the rows of either view. An epoch
visits every (batch, layer) once, in random order.

`data` is what is trained on; `standardization` how each layer's rows are best standardised, by their margins to near rows
(`hard_negatives`), or by how views differ (`within`); `steps` how far each layer goes towards the trained map, `start` where first
layers begin; `shuffle` which rows a step sees, `rows` where they are read and encoded, `objective` the loss, and how held-out rows
fare; `state` where a run stands, `loop` the loop, `job` a run from options to file, `stacked` the same on grids of measures.
What a step sees depends on seed, epoch and step alone, so that a run can be taken up at any step.
"""

from contrasim_cli.training.data import Data, check_data
from contrasim_cli.training.loop import Run
from contrasim_cli.training.rows import Source
from contrasim_cli.training.shuffle import Order, Step
from contrasim_cli.training.standardization import Choice, choose
from contrasim_cli.training.state import (
    State,
    check_resumable,
    check_room,
    curves_of,
    new_state,
    partial_path,
    provenance,
    resumed_state,
)

__all__ = [
    "Choice",
    "Data",
    "Order",
    "Run",
    "Source",
    "State",
    "Step",
    "check_data",
    "check_resumable",
    "check_room",
    "choose",
    "curves_of",
    "new_state",
    "partial_path",
    "provenance",
    "resumed_state",
]
