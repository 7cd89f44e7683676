"""`-` on the command line: stores whose paths stdin lists, and results that go to stdout alone."""

import sys
from pathlib import Path

from contrasim_cli.errors import UsageError

DASH = Path("-")


def stores(paths: list[Path] | None) -> list[Path] | None:
    """The paths, and in the place of `-` those that stdin lists, one per line.

    Raises:
        UsageError: `-` is given twice, or stdin lists none, or is a terminal.
    """
    if not paths or DASH not in paths:
        return paths
    if paths.count(DASH) > 1:
        raise UsageError("- is given twice; stdin is read once")
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("- reads a list of stores from stdin, one per line, and stdin is a terminal; pipe them in")
    listed = [Path(line) for line in sys.stdin.read().splitlines() if line.strip()]
    if not listed:
        raise UsageError(
            "- reads a list of stores from stdin, one per line, and there is none (several processes cannot share it)"
        )
    place = paths.index(DASH)
    return [*paths[:place], *listed, *paths[place + 1 :]]


def output(path: Path | None) -> Path | None:
    """A file that results go to besides stdout; `-` is none."""
    return None if path == DASH else path
