"""Results as one HTML page to send to somebody: everything is in it, and nothing is loaded from elsewhere.

`contents` makes plain data of the results, `page` puts it, texts and plotly.js into one file, whose figures `page.js` draws.
"""

from collections.abc import Sequence
from pathlib import Path

from contrasim_cli.output_files import write_atomic
from contrasim_cli.report.heat_maps import HeatMap
from contrasim_cli.report.html.page import html
from contrasim_cli.report.results import Results


def write(results: Results, path: Path, force: bool, grids: Sequence[HeatMap] = ()) -> None:
    """Write the page, whole or not at all; `grids` are further heat maps, of benchmarks that are about grids."""
    write_atomic(path, html(results.printable(), grids).encode("utf-8", "backslashreplace"), force)
