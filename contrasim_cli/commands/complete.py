"""What the shell completes: names of measures, and of the layers of the stores that stand on the command line already."""

import contextlib
import os
import shlex
from pathlib import Path

LINES = ("_TYPER_COMPLETE_ARGS", "COMP_WORDS")  # where zsh, fish and PowerShell put it, and bash
MOST = 8  # words that may be stores


def measures(incomplete: str) -> list[str]:
    """The closed-form measures that begin so."""
    from contrasim_cli.measures import MEASURES

    return [name for name in MEASURES if name.startswith(incomplete)]


def layers(incomplete: str) -> list[str]:
    """The layers that begin so of the first word that is a store; none where there is none, and never an error."""
    from contrasim_cli.store import open_store

    for path in [Path(word) for word in _words() if not word.startswith("-") and Path(word).exists()][:MOST]:
        try:
            store = open_store(path)
        except Exception:  # whatever is wrong with it, the command will say
            continue
        names = list(store.layers)
        store.close()
        return [name for name in names if name.startswith(incomplete)]
    return []


def _words() -> list[str]:
    """The words on the command line behind the name of the program, as shells tell."""
    line = next((os.environ[name] for name in LINES if os.environ.get(name)), "")
    with contextlib.suppress(ValueError):  # of quotes that are still open
        return shlex.split(line)[1:]
    return line.split()[1:]
