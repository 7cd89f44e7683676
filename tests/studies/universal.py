"""The encoder that comes with the package: its grids, how it does on kinds of networks it was not trained on, and its file.

Run: python tests/studies/universal.py grids --zoos FOLDER [--zoo NAME …]    closed forms of every pair of the zoos of `zoos.py`
     python tests/studies/universal.py table [--seeds 3] [--zoo NAME …]      leave one zoo out
     python tests/studies/universal.py own --zoos FOLDER [--zoo NAME …]      two and four models of the zoo itself in training
     python tests/studies/universal.py make                                  the files of the package, of all zoos

Grids are kept in `universal_grids.npz` beside this script: of every zoo, data set and pair of members [3, measures, L, M] (rows as
they are, and under two shuffles), in float32. From them the files come out bit for bit on one machine and one build of torch.

The table: encoders are trained on all zoos but one and judged on every pair of that one, for each layer of either model whether its
own depth scores highest among the layers of the other. Pairs that differ in seed alone, in width, and in depth are told apart. A
zoo's rivals are all closed forms whose grids are kept, and with `--closed FOLDER` all of the registry (`closed` computes them).
Intervals are from resampling the members of the zoo, pairs of which share rows and networks.
"""

import argparse
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrasim_cli import encoder as encoders
from contrasim_cli.encoder import Checkpoint, Config
from contrasim_cli.grid import Grid, Plan, layer_grids
from contrasim_cli.grid.compute import sized, taken
from contrasim_cli.measures import MEASURES
from contrasim_cli.recipes import MEASURED, MEASURED_LR, TUNED_LR
from contrasim_cli.scoring import closed_form
from contrasim_cli.stacking import universal
from contrasim_cli.stacking.measures import SCALE_FREE, SCALED, blind, identity
from contrasim_cli.stacking.training import Batches, Example, same_depth
from contrasim_cli.stacking.transport import matched
from contrasim_cli.store import View, open_stores
from contrasim_cli.training.stacked import Run
from contrasim_cli.training.state import new_state

HERE = Path(__file__).parent
GRIDS = HERE / "universal_grids.npz"
DATA = ("test", "other")
SHUFFLES, RESAMPLES = 2, 2000
OWN, MOST = (2, 4), 10  # models of a zoo in training, and seeds that are made of some zoos
SEEDS = 6  # members of one size whose pairs are taken
KINDS = ("seed", "width", "depth")
MATCHED = ", matched"  # of a closed form, with the matching that the encoders' scores have

Key = tuple[str, str, str, str]  # zoo, data, members
Grids = Mapping[Key, Any]


# --- grids --------------------------------------------------------------------------------------------------------------


def compute(
    folder: Path, zoo: str, data: str, names: Sequence[str], shuffles: int = SHUFFLES, seeds: int = SEEDS
) -> dict[Key, Any]:
    """Closed forms [1 + shuffles, measures, L, M] of pairs of a zoo's members, in one grid: see `chosen_pairs`."""
    names_of = sorted(path.stem for path in (folder / zoo / data).glob("*.h5"))
    pairs = chosen_pairs(names_of, seeds)
    used = sorted({k for pair in pairs for k in pair})
    paths = [folder / zoo / data / f"{names_of[k]}.h5" for k in used]
    pairs = [(used.index(a), used.index(b)) for a, b in pairs]
    stores = open_stores(paths)
    rng = np.random.default_rng([0, 11])
    orders = [None, *(rng.permutation(stores[0].n_rows) for _ in range(shuffles))]
    views = [sized(taken(View(store), order)) for order in orders for store in stores]
    layers = [list(store.layers) for store in stores] * len(orders)
    every = [(a, b + k * len(stores)) for a, b in pairs for k in range(len(orders))]
    grid = Grid(Plan(views, every, layers, layers), closed_form(names), torch.device("cpu"), 6 << 30)
    found = layer_grids(grid)
    return {
        (zoo, data, paths[a].stem, paths[b].stem): np.stack(
            [np.stack([found[s, a, b + k * len(stores)] for s in range(len(names))]) for k in range(len(orders))]
        )
        for a, b in pairs
    }


def chosen_pairs(members: Sequence[str], seeds: int) -> list[tuple[int, int]]:
    """Pairs of the first seeds, and each member of another size with the first two of them, by position."""
    first = [k for k, name in enumerate(members) if name in {f"s{seed}" for seed in range(seeds)}]
    sizes = [k for k, name in enumerate(members) if not name[1:].isdigit()]
    return [*itertools.combinations(first, 2), *((k, other) for k in first[:2] for other in sizes)]


def write(path: Path, grids: Grids) -> None:
    """Keep grids under their keys."""
    np.savez_compressed(path, **{"|".join(key): grid.astype(np.float32) for key, grid in grids.items()})


def read(path: Path) -> dict[Key, Any]:
    """The grids that are kept."""
    with np.load(path, allow_pickle=False) as file:
        return {tuple(name.split("|")): file[name].astype(np.float64) for name in file.files}  # type: ignore[misc]


def kind(key: Key) -> str:
    """What the members of a pair differ in besides their seed."""
    other = {name for name in key[2:] if not (name[0] == "s" and name[1:].isdigit())}
    return "depth" if other & {"deep", "shallow"} else "width" if other else "seed"


# --- training -----------------------------------------------------------------------------------------------------------


def configuration(names: Sequence[str], seed: int, **changed: Any) -> Config:
    """The recipe of `train --inputs measures`, with more steps."""
    parts = MEASURED | {"lr": MEASURED_LR, "epochs": 6, "members": 2} | changed
    return Config(
        task="layers", widths=(), inputs="measures", measures=tuple(names), blind=blind(names), seed=seed, **parts
    )


def train(grids: Grids, config: Config, start: Checkpoint | None = None) -> Checkpoint:
    """An encoder of these grids, from the weights of another where one is given; every zoo counts as much as any other."""
    of = torch.tensor(identity(config.measures), dtype=torch.float64)
    chosen = [SCALED.index(name) for name in config.measures]
    examples = []
    for (zoo, *_), grid in grids.items():
        values = torch.from_numpy(grid[:, chosen])
        examples.append(Example(values[0], values[1:], same_depth(*values.shape[-2:]), zoo))
    state = new_state(config, torch.device("cpu"))
    if start is not None:
        state.encoder.load_state_dict(start.encoder.state_dict())
    Run(config, Batches(examples, of, config.batch_size, config.seed), state, lambda _state, _finished: None).train()
    return state.checkpoint({}, finished=True)


# --- judging ------------------------------------------------------------------------------------------------------------


def right(scores: Any) -> Any:
    """Of every layer of either model, whether the most similar layer of the other is of the same depth."""
    same = same_depth(*scores.shape).numpy()
    rows = same[np.arange(len(scores)), scores.argmax(axis=1)] & _leads(scores)
    columns = same[scores.argmax(axis=0), np.arange(scores.shape[1])] & _leads(scores.T)
    return np.concatenate([rows, columns])


def _leads(scores: Any) -> Any:
    """Whether the best of a row is ahead of the next by more than rounding."""
    if scores.shape[1] == 1:
        return np.ones(len(scores), dtype=bool)
    best = np.sort(scores, axis=1)[:, -2:]
    return best[:, 1] - best[:, 0] > 1e-6 * np.abs(best).max(axis=1)


def learned(checkpoints: Sequence[Checkpoint], grid: Any, null: bool = False) -> Any:
    """Scores of a pair, the mean of several encoders'; of shuffled rows where `null`."""
    total = 0
    for one in checkpoints:
        of = torch.tensor(identity(one.config.measures), dtype=torch.float64)
        values = torch.from_numpy(grid[:, [SCALED.index(name) for name in one.config.measures]])
        judged = one.encoder.grids.eval().judge(values[2 if null else 0], values[1:], of)
        total = total + judged.scores.double().numpy()
    return total


@dataclass(frozen=True)
class Judgement:
    """Accuracies of a zoo's pairs of one kind, by who judges; pairs in one order."""

    pairs: Sequence[Key]
    right: Mapping[str, Sequence[float]]

    def mean(self, name: str) -> float:
        """In %."""
        return 100 * float(np.mean(self.right[name]))

    def difference(self, one: str, other: str) -> tuple[float, float]:
        """95 % interval of one's lead over another, in %, members (and data sets) being resampled."""
        lead = 100 * (np.array(self.right[one]) - np.array(self.right[other]))
        members = sorted({name for key in self.pairs for name in key[2:]})
        at = np.array([[members.index(key[2]), members.index(key[3])] for key in self.pairs])
        rng = np.random.default_rng(0)
        means = []
        for _ in range(RESAMPLES):
            drawn = np.bincount(rng.integers(len(members), size=len(members)), minlength=len(members))
            weights = drawn[at[:, 0]] * drawn[at[:, 1]]
            if weights.sum():
                means.append(float((weights * lead).sum() / weights.sum()))
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)


def judge(grids: Grids, closed: Mapping[str, Grids], checkpoints: Mapping[str, Sequence[Checkpoint]]) -> Judgement:
    """Everybody on these pairs; `closed` has further closed forms by name, one grid per pair."""
    found: dict[str, list[float]] = {}
    for key, grid in grids.items():
        for name, members in checkpoints.items():
            found.setdefault(name, []).append(float(right(learned(members, grid)).mean()))
            found.setdefault(f"{name}, shuffled", []).append(float(right(learned(members, grid, null=True)).mean()))
        for k, name in enumerate(SCALED):
            signed = _signed(name, grid[0, k])
            found.setdefault(name, []).append(float(right(signed).mean()))
            found.setdefault(f"{name}{MATCHED}", []).append(float(right(_matched(signed)).mean()))
        for name, others in closed.items():
            if name not in SCALED and key in others:
                signed = _signed(name, others[key])
                found.setdefault(name, []).append(float(right(signed).mean()))
                found.setdefault(f"{name}{MATCHED}", []).append(float(right(_matched(signed)).mean()))
    return Judgement(list(grids), found)


def _signed(name: str, values: Any) -> Any:
    signed = values if MEASURES[name].higher_is_more_similar else -values
    return np.nan_to_num(signed, nan=-np.inf)


def _matched(signed: Any) -> Any:
    """A closed form's grid with the matching that scores of encoders have."""
    found = matched(torch.from_numpy(np.where(np.isfinite(signed), signed, np.nan)))
    return np.nan_to_num(found.numpy(), nan=-np.inf)


def table(grids: Grids, closed: Mapping[str, Grids], zoos: Iterable[str], seeds: int) -> list[dict[str, Any]]:
    """A line per zoo, data set and kind of pairs, printed as it comes."""
    lines = []
    print(
        "| zoo | data | pairs | universal | scale free | shuffled | best closed form | lead, 95 % | best of them matched |"
    )
    print("|---" * 9 + "|")
    for zoo in zoos:
        others = {key: grid for key, grid in grids.items() if key[0] != zoo}
        made = {
            "universal": [train(others, configuration(SCALED, seed)) for seed in range(seeds)],
            "scale free": [train(others, configuration(SCALE_FREE, 0))],
        }
        for data, differ in itertools.product(DATA, KINDS):
            chosen = {key: grid for key, grid in grids.items() if key[:2] == (zoo, data) and kind(key) == differ}
            if not chosen:
                continue
            each = {f"universal, seed {k}": [one] for k, one in enumerate(made["universal"])}
            judged = judge(chosen, closed, {**made, **each})
            forms = [name for name in judged.right if name in MEASURES and len(judged.right[name]) == len(chosen)]
            best = max(forms, key=judged.mean)
            low, high = judged.difference("universal", best)
            best_matched = max((f"{name}{MATCHED}" for name in forms), key=judged.mean)
            line = {
                "zoo": zoo,
                "data": data,
                "kind": differ,
                "pairs": len(chosen),
                "best": best,
                "best_matched": best_matched,
                "low": low,
                "high": high,
            }
            line |= {name: round(judged.mean(name), 1) for name in judged.right}
            lines.append(line)
            spread = np.std([judged.mean(f"universal, seed {k}") for k in range(seeds)])
            single = np.mean([judged.mean(f"universal, seed {k}") for k in range(seeds)])
            print(
                f"| {zoo} | {data} | {differ}, {len(chosen)} | {single:.1f} ± {spread:.1f} | {judged.mean('scale free'):.1f} | "
                f"{judged.mean('universal, shuffled'):.1f} | {best} {judged.mean(best):.1f} | {low:+.1f} to {high:+.1f} | "
                f"{best_matched.removesuffix(MATCHED)} {judged.mean(best_matched):.1f} |",
                flush=True,
            )
    for differ in KINDS:
        of = [line for line in lines if line["kind"] == differ]
        if of:
            ours, theirs = (float(np.mean([line[name] for line in of])) for name in ("universal", "cka"))
            best, fitted = (float(np.mean([line[line[key]] for line in of])) for key in ("best", "best_matched"))
            print(
                f"mean, {differ}: universal {ours:.1f}, best closed form of each {best:.1f}, cka {theirs:.1f}, best closed form of "
                f"each, matched {fitted:.1f}"
            )
    return lines


def own(folder: Path, grids: Grids, zoos: Iterable[str], seeds: int) -> None:
    """Two and four models of the zoo itself in training, beginning with an encoder of all other zoos; tested on its other seeds."""
    print(
        "| zoo | data | models in training | universal, without the zoo | with them | best closed form | lead, 95 % |"
    )
    print("|---" * 7 + "|")
    for zoo in zoos:
        others = {key: grid for key, grid in grids.items() if key[0] != zoo}
        starts = [train(others, configuration(SCALED, seed)) for seed in range(seeds)]
        learned_on = compute(folder, zoo, "train", SCALED, seeds=max(OWN))
        for count, data in itertools.product(OWN, DATA):
            first = {f"s{k}" for k in range(count)}
            few = {key: grid for key, grid in learned_on.items() if set(key[2:]) <= first}
            made = [train(few, replace(one.config, epochs=4, lr=TUNED_LR), one) for one in starts]
            every = compute(folder, zoo, data, SCALED, seeds=MOST)
            taken = {f"s{k}" for k in range(max(OWN))}
            tested = {key: grid for key, grid in every.items() if kind(key) == "seed" and not set(key[2:]) & taken}
            judged = judge(tested, {}, {"without": starts, "with": made})
            best = max(SCALED, key=judged.mean)
            low, high = judged.difference("with", best)
            print(
                f"| {zoo} | {data}, {len(tested)} pairs | {count} | {judged.mean('without'):.1f} | {judged.mean('with'):.1f} | "
                f"{best} {judged.mean(best):.1f} | {low:+.1f} to {high:+.1f} |",
                flush=True,
            )


def make(grids: Grids, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write the files of the package, with the table of what they were when each zoo was left out."""
    zoos = sorted({key[0] for key in grids})
    for path, names in ((universal.FILE, SCALED), (universal.SCALE_FREE_FILE, SCALE_FREE)):
        made = train(grids, configuration(names, 0, epochs=10, members=4))
        column = "universal" if names == SCALED else "scale free"
        shown = [
            {k: line[k] for k in ("zoo", "data", "kind", "pairs", "best")}
            | {"accuracy": line[column], "best_accuracy": line[line["best"]]}
            for line in lines
        ]
        about = {"stores": [], "standardized_by": [], "zoos": zoos, "pairs": len(grids), "left_out": shown}
        versions = {"torch": str(torch.__version__), "numpy": np.__version__}
        encoders.save(path, Checkpoint(made.encoder, made.training, about | {"versions": versions}), force=True)
        print(f"wrote {path}: {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["grids", "closed", "table", "own", "make"])
    parser.add_argument("--zoos", type=Path, default=Path("zoos"))
    parser.add_argument("--zoo", nargs="+")
    parser.add_argument("--measure", nargs="+", default=[name for name in MEASURES if name not in SCALED])
    parser.add_argument("--closed", type=Path, default=Path("closed.npz"))
    parser.add_argument("--lines", type=Path, default=Path("table.json"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    grids = read(GRIDS) if GRIDS.exists() else {}
    zoos = options.zoo or sorted({key[0] for key in grids} or {path.name for path in options.zoos.iterdir()})
    if options.what == "grids":
        for zoo, data in itertools.product(zoos, DATA):
            grids |= compute(options.zoos, zoo, data, SCALED)
            write(GRIDS, grids)
    elif options.what == "closed":
        kept = read(options.closed) if options.closed.exists() else {}
        for zoo, data in itertools.product(zoos, DATA):
            found = compute(options.zoos, zoo, data, options.measure, shuffles=0)
            kept |= {(*key, name): grid[0, k] for key, grid in found.items() for k, name in enumerate(options.measure)}  # type: ignore[misc]
            write(options.closed, kept)
    elif options.what == "table":
        closed: dict[str, dict[Key, Any]] = {}
        for key, grid in (read(options.closed) if options.closed.exists() else {}).items():
            closed.setdefault(key[4], {})[key[:4]] = grid  # type: ignore[misc]
        lines = table(grids, closed, zoos, options.seeds)
        options.lines.write_text(json.dumps(lines))
    elif options.what == "own":
        own(options.zoos, grids, zoos, options.seeds)
    else:
        make(grids, json.loads(options.lines.read_text()) if options.lines.exists() else [])


if __name__ == "__main__":
    main()
