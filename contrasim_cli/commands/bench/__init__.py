"""`contrasim bench`: which measure to trust, by layer prediction and by retrieval."""

from collections.abc import Callable

import typer

from contrasim_cli.commands import options as o
from contrasim_cli.commands.bench.compare import compare_trials
from contrasim_cli.commands.bench.layers import layers_benchmark
from contrasim_cli.commands.bench.retrieval import image_caption, multilingual
from contrasim_cli.commands.bench.sanity import sanity
from contrasim_cli.commands.examples import epilog
from contrasim_cli.commands.help import Command, Group

bench = typer.Typer(
    name="bench",
    cls=Group,
    no_args_is_help=True,
    help="Tell which measure to trust: layer prediction, multilingual and image-caption retrieval.",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "layers": layers_benchmark,
    "multilingual": multilingual,
    "image-caption": image_caption,
    "compare": compare_trials,
    "sanity": sanity,
}
for name, function in COMMANDS.items():
    bench.command(name, cls=Command, epilog=epilog(name))(o.command(function))
