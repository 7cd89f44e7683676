"""`contrasim bench`: which measure to trust, by layer prediction and by retrieval."""

import typer

from contrasim_cli.commands import options as o
from contrasim_cli.commands.bench.compare import compare_trials
from contrasim_cli.commands.bench.layers import layers_benchmark
from contrasim_cli.commands.bench.retrieval import image_caption, multilingual
from contrasim_cli.commands.bench.sanity import sanity

bench = typer.Typer(help="Tell which measure to trust: layer prediction, multilingual and image-caption retrieval.")
bench.command("layers")(o.command(layers_benchmark))
bench.command("multilingual")(o.command(multilingual))
bench.command("image-caption")(o.command(image_caption))
bench.command("compare")(o.command(compare_trials))
bench.command("sanity")(o.command(sanity))
