"""Steps per second of training beside the machine's matrix-product rate and a plain loop, and time to accuracy, in one run.

Run: python tests/studies/train.py [--models 10] [--layers 12] [--width 768] [--batch 1024] [--steps 5] [--threads 2]
     [--precisions float32 bfloat16] [--cpu-time] [--only steps|accuracy] [--samples layers multilingual image-caption]
     [--device cpu|cuda]

Operations are counted exactly, of what is done: a linear layer costs 2 · rows · inputs · outputs forward, and as much again for
its weights' and for its inputs' gradient, of which the first layer needs none. Of the similarities of N items, a product of
2 · N² · values, the loop's gradient is two more such products; ours, as they are symmetric, one for task `layers`, and for
`pairs` 3/4 of one forward and one for the gradient.

The product rate is taken before and after each step that is compared to it, and the better counts. `--cpu-time` measures a
thread's own time, which means something on a busy machine, with one thread.
"""

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from recipes import Study, benched, sample_studies
from timing import product_rate, seconds
from torch import Tensor, nn
from torch.nn import functional

from contrasim_cli import encoder, losses, training
from contrasim_cli.encoder import Config
from contrasim_cli.recipes import RECIPES
from contrasim_cli.store import Layer, Store, View, align, open_stores
from contrasim_cli.training import Data, Order, Run, Source
from contrasim_cli.transforms import Standardizer

Clock = Callable[[], float]
HIDDEN, OUTPUT = (512, 256), 128


# --- steps ------------------------------------------------------------------------------------------------------------


def made_data(views: int, layers: int, rows: int, width: int) -> Data:
    """Views in memory whose rows share some structure, float16."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((rows, 64), dtype=np.float32)
    made = []
    for v in range(views):
        matrices = {}
        for k in range(layers):
            mix = rng.standard_normal((64, width), dtype=np.float32) / 8
            matrix = (shared @ mix + rng.standard_normal((rows, width), dtype=np.float32)).astype(np.float16)
            matrices[f"hidden_{k}"] = Layer(f"hidden_{k}", matrix)
        made.append(View(Store(Path(f"view_{v}"), "memory", matrices)))
    return Data(made, [list(view.store.layers) for view in made])


def operations(config: Config, items: int, symmetric: bool) -> float:
    """Floating-point operations of a step: encoder and similarity matrix, forward and backward."""
    n = config.batch_size
    sizes = [config.widths[-1], *config.hidden, config.output]
    products = [a * b for a, b in itertools.pairwise(sizes)]
    encoder = 2 * items * n * (2 * products[0] + 3 * sum(products[1:]))
    compared = items**2 * n if config.task == "layers" else (items * n) ** 2
    passes = {"layers": 2.0, "pairs": 1.75}[config.task] if symmetric else 3.0
    return encoder + passes * 2 * compared * config.output


def plain_net(width: int) -> nn.Module:
    """The same encoder as anybody would write it."""
    sizes = [width, *HIDDEN, OUTPUT]
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def plain_step(config: Config, rows: Sequence[Tensor], n_layers: int) -> Callable[[], None]:
    """One step as a loop over models and layers, float32."""
    net = plain_net(config.widths[-1]).to(rows[0].device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    n, where = config.batch_size, rows[0].device
    sets = (
        losses.layer_sets(len(rows) // n_layers, n_layers, where)
        if config.task == "layers"
        else losses.pair_sets(n, "both", where)
    )

    def step() -> None:
        encoded = [functional.normalize(net(one.float()), dim=-1) for one in rows]
        z = torch.stack(encoded) if config.task == "layers" else torch.cat(encoded).unsqueeze(1)
        s = losses.similarity_matrix(z) / config.temperature
        loss = losses.contrasim(s, sets.positives, sets.negatives)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def time_steps(task: str, arguments: argparse.Namespace) -> None:
    """Print a table of one task."""
    views = arguments.models if task == "layers" else 2
    data = made_data(views, arguments.layers, 2 * arguments.batch, arguments.width)
    config = Config(
        task=task, objective="contrasim", widths=data.widths, hidden=HIDDEN, output=OUTPUT, batch_size=arguments.batch
    )
    items = views * arguments.layers if task == "layers" else 2
    plain_work, work = (operations(config, items, symmetric) / 1e9 for symmetric in (False, True))
    print(
        f"\n{task}: {items} items of {arguments.batch} rows of {arguments.width}, {work:.1f} GFLOP per step "
        f"({plain_work:.1f} by the loop)"
    )
    print(f"{'':<28}{'seconds':>9}{'steps/s':>9}{'GFLOP/s':>9}{'of rate':>9}{'x loop':>8}")
    layers = range(arguments.layers) if task == "layers" else range(1)
    device = torch.device(arguments.device)
    read = [view.store.read(f"hidden_{k}", 0, arguments.batch) for view in data.views for k in layers]
    rows = [torch.from_numpy(one).to(device) for one in read]
    loop, rate = beside_rate(plain_step(config, rows, len(layers)), "float32", arguments)
    report("plain loop, float32", loop, plain_work, rate, loop)
    for name in arguments.precisions:
        asked = replace(config, precision=name)
        source = Source(data, Order.of(data, asked), 1 << 62, device=device)
        run = Run(source, asked, training.new_state(asked, device), device)
        with source.groups(0, 0) as groups:
            group, held, _ = next(groups)
            took, rate = beside_rate(functools.partial(run._step, group.steps[0], held), name, arguments)
        report(f"contrasim, {name}", took, work, rate, loop)


def beside_rate(step: Callable[[], object], precision: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a step, and the product rate around it."""
    clock = time.thread_time if arguments.cpu_time else time.perf_counter
    dtype = getattr(torch, precision)
    device = torch.device(arguments.device)
    before = product_rate(dtype, clock=clock, device=device)
    seconds(step)  # a device's first is slow
    took = seconds(step, arguments.steps, clock)
    return took, max(before, product_rate(dtype, clock=clock, device=device))


def report(name: str, took: float, work: float, rate: float, loop: float) -> None:
    """One line."""
    print(f"{name:<28}{took:>9.3f}{1 / took:>9.2f}{work / took:>9.0f}{work / took / rate:>9.1%}{loop / took:>8.2f}")


# --- time to accuracy -------------------------------------------------------------------------------------------------


def prepared(study: Study, recipe: str, precision: str) -> tuple[Data, Config]:
    """What a recipe makes of a study's training stores; rows are standardised, which is part of the time it takes."""
    views = align(open_stores(study.train))
    names = [[name for name in view.store.layers if name != "hidden_0"] for view in views]
    data = Data(views, names)
    parts = RECIPES[recipe][study.task]
    parts |= {"output": parts["output"] or data.widths[-1]}
    config = Config(task=study.task, widths=data.widths, recipe=recipe, precision=precision, **parts)
    standardizer = Standardizer(views)
    if config.standardize == "auto":
        config = training.choose(data, standardizer, config, 1 << 62).of(config, with_lr=True)
    return replace(data, transforms=standardizer.transforms(config.standardization, names, 1 << 62)), config


def accuracies(
    study: Study, recipe: str, precision: str, clock: Clock, device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds since the start, without reading and judging, and the benchmark's accuracy, by epoch."""
    started = clock()
    data, config = prepared(study, recipe, precision)
    spent, found = [clock() - started], list[float]()
    source = Source(data, Order.of(data, config), 1 << 62, device=device)
    since = 0.0

    def judge() -> dict[str, float]:
        nonlocal since
        spent.append(spent[-1] + clock() - since)
        checkpoint = run.state.checkpoint(training.provenance(source), finished=True)
        found.append(judged(study, checkpoint))
        since = clock()
        return {}

    run = Run(source, config, training.new_state(config, device), device)
    run._validated = judge  # type: ignore[method-assign]
    since = clock()
    run.train()
    return spent[1:], found


def judged(study: Study, checkpoint: encoder.Checkpoint) -> float:
    """Overall accuracy on the test stores, of which no more than three; among nearest neighbours where candidates are drawn."""
    few = study._replace(test=study.test[: 3 if study.task == "pairs" else None])
    options = [] if study.task == "layers" else ["--negatives", "faiss"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "e.pt"
        encoder.save(path, checkpoint, force=True)
        rows = benched(few, path.parent, "--encoder", path, *options)
    return next(float(row["accuracy"]) for row in rows if row["pair"] == row["layer"] == "all")


def reached(times: Sequence[float], values: Sequence[float], level: float) -> float:
    """When the accuracy first reached a level; infinite if never."""
    return next((t for t, value in zip(times, values, strict=True) if value >= level), float("inf"))


def time_to_accuracy(arguments: argparse.Namespace) -> None:
    """Print how well either recipe does on the sample data in each precision, and how soon.

    The last two columns are the time to 99 % of what `paper` comes to in float32, as part of all its time and of its time to
    the same.
    """
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    titles = ("final", "s total", "s to 99 % of final", "s to paper's 99 %", "of paper's total", "of paper's same")
    print(f"\n{'test stores':<22}{'recipe':<9}{'precision':<10}" + "".join(f"{title:>20}" for title in titles))
    for study in sample_studies():
        if study.benchmark not in arguments.samples:
            continue
        paper: tuple[float, float, float] | None = None
        for recipe, precision in itertools.product(("paper", "default"), arguments.precisions):
            times, values = accuracies(study, recipe, precision, clock, torch.device(arguments.device))
            own = reached(times, values, 0.99 * values[-1])
            paper = paper or (values[-1], times[-1], own)
            other = reached(times, values, 0.99 * paper[0])
            found = (values[-1], times[-1], own, other, other / paper[1], other / paper[2])
            print(
                f"{study.title:<22}{recipe:<9}{precision:<10}" + "".join(f"{value:>20.3f}" for value in found),
                flush=True,
            )


def main() -> None:
    """Parse the options and print the tables."""
    parser = argparse.ArgumentParser()
    for name, default in (
        ("models", 10),
        ("layers", 12),
        ("width", 768),
        ("batch", 1024),
        ("steps", 5),
        ("threads", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--samples", nargs="*", default=["layers", "multilingual", "image-caption"])
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--only", choices=["steps", "accuracy"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.only != "accuracy":
        device = torch.device(arguments.device)
        rates = ", ".join(
            f"{name} {product_rate(getattr(torch, name), device=device):.0f}" for name in arguments.precisions
        )
        print(f"{device}, threads {torch.get_num_threads()}; matrix products, GFLOP/s: {rates}")
        for task in ("layers", "pairs"):
            time_steps(task, arguments)
    if arguments.only != "steps":
        time_to_accuracy(arguments)


if __name__ == "__main__":
    main()
