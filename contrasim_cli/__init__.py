"""contrasim: how similar are two neural representations? A map of the house.

Data flows one way: a **store** of activations is read in blocks of **rows**, which are standardised, described by anchors or
encoded; a **grid** compares every layer of one store with every layer of another, by closed-form **measures** or learned ones;
**training** makes encoders; **benchmarks** say which measure to trust; **commands** say what was found.

Where things are decided
- `cli`, `commands/`: what the options are, and which exit code an error has (`errors`); a module per command, and per command of
  `bench`. `commands/options`, `inputs` and `emit` declare options in groups, which a command gets as objects; `layer_scores` is
  what `score` and `baseline` share.
- `store/`: what is in a file, whoever wrote it. `open` finds its kind by its content, one module reads each kind, `layout` and
  `axes` say which arrays are layers and which axes rows, `align` which rows of several stores go together, `child_process` tries in
  a child process what may crash. `format` and `seal`: our own HDF5.
- `extraction/`: stores from models: `sources/` are fed to `networks/`, `pooling` makes rows of their states, `run` writes them.
- `transforms`, `anchors/`: what is done to rows before they are compared: standardising, and rows told by their likeness to others.
- `measures/`: the registry of closed forms (`__init__`), and a module per family; `protocol` is what a measure consists of.
- `encoder`, `losses`, `recipes`: what a learned measure is (a checkpoint, too), what it minimises, and what stands where no
  option says otherwise. `stacking/`: learned measures over closed-form ones, `universal` among them.
- `scoring`: a measure or an encoder, as everything that compares takes it.
- `rows/`: the one way from a view to what a scorer takes: rows read, standardised, encoded, held where they fit, else read one
  block ahead; and `exact_search` for nearest rows.
- `training/`: from stores to an encoder: `standardization` and `start` before it, `job`, `loop` and `shuffle` while it lasts,
  `state` what a stopped run goes on with, `whole_batch` what ranks share of a step; `stacked` trains on grids; `recognised` says
  which rows and models an encoder knows.
- `grid/`: all pairs of layers: `compute` says which way a measure goes, and what is made of measures; a module per way.
- `confidence/`, `nulls`: intervals, p-values, and where a learned score lies between chance and identity.
- `nearest`: nearest rows by a product of matrices, and how far its rounding may mislead.
- `neuron_moments`, `trained_rows`, `cautions`: what an encoder knows of rows and models, and what a statistician would warn of.
- `benchmarks/`: `layers`, `retrieval` and `sanity` are the protocols; `encoders` trains what they need; `differences` compares
  measures; `approximate_search` finds rows that are nearly the nearest; `items` is about rows that belong together.
- `api`: what this package offers to Python, loaded when it is first asked for.
- `report/`, `plots/`: results as data, as text and tables, and as figures.

What everything uses
- `input_files`, `output_files`, `snapshot`, `archives`, `locks`: files that are one version, whole or absent, and safe to open.
- `memory`, `device`, `limits`: how much room there is, where, and for a process that tries a file.
- `names`, `console`, `progress`: names of others as they are shown, what goes to stderr, and how far work is.
- `distributed`: several processes of one command: what they share, add up, and fail of together.
- `seeds`: what a seed is for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contrasim_cli.api import (
        LayerScores,
        LearnedMeasure,
        compare,
        compare_layers,
        extract,
        load_encoder,
        open_store,
    )

__all__ = ["LayerScores", "LearnedMeasure", "compare", "compare_layers", "extract", "load_encoder", "open_store"]


def __getattr__(name: str) -> Any:
    """The public names, whose modules import NumPy, when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from contrasim_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
