"""`contrasim bench compare`: is one measure better than another, or is it noise?"""

import logging
from pathlib import Path
from typing import Annotated

import typer

from contrasim_cli.commands.emit import Output
from contrasim_cli.commands.options import Seed
from contrasim_cli.errors import UsageError
from contrasim_cli.report.results import CompareRow, Results

log = logging.getLogger(__name__)


def compare_trials(
    files: Annotated[
        list[Path],
        typer.Argument(help="One or two files that --trials wrote.", metavar="TRIALS...", show_default=False),
    ],
    output: Output,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="A measure of the first file; give a second one for the second (or the same) file. Words after its name choose "
            "among its encoders: 'contrasim, wiki, seed 0'. Default: every measure that both files have.",
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Is the first measure better than the second on the same trials, or is it noise?

    Every difference (first minus second) comes with a 95 % interval by resampling clusters of trials and encoders, the
    p-value of the clusters' signs, and a verdict; several layers are corrected for (Holm).
    """
    if len(files) > 2:
        raise UsageError(f"bench compare takes one or two files, {len(files)} given")
    output.check("bench compare has many, give --format tsv", files)
    from contrasim_cli.benchmarks.differences import FEW, compare
    from contrasim_cli.benchmarks.trials import caveat, check_same_trials, read_trials, sides

    read = [read_trials(path) for path in files]
    first, second = read[0], read[1] if len(read) > 1 else None
    if second is not None:
        check_same_trials(first, second)
    side_pairs = sides(first, second, measure or [])
    rows: list[CompareRow] = []
    for a, b in side_pairs:
        rows.extend(compare(first, a, b, seed))
        if note := caveat(a, b):
            log.info(note)
    few = [row.clusters for row in rows if row.verdict == FEW]
    if few:
        log.info("too few clusters for a verdict: %d; with fewer than 6 no p-value is 0.05 or less", min(few))
    about = {"inputs": [str(path) for path in files], "seed": seed}
    output.emit(Results("bench compare", CompareRow, rows, about))
