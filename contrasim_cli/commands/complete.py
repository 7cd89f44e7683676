"""What the shell completes: names of measures, and of the layers of the stores that stand on the command line already."""

from pathlib import Path

MOST = 8  # words that may be stores


def measures(incomplete: str) -> list[str]:
    """The closed-form measures that begin so."""
    from contrasim_cli.measures import MEASURES

    return [name for name in MEASURES if name.startswith(incomplete)]


def layers(args: list[str], incomplete: str) -> list[str]:
    """The layers that begin so of the first word that is a store; none where there is none, and never an error."""
    from contrasim_cli.store import open_store

    for path in [Path(word) for word in args if not word.startswith("-") and Path(word).exists()][:MOST]:
        try:
            store = open_store(path)
        except Exception:  # whatever is wrong with it, the command will say
            continue
        names = list(store.layers)
        store.close()
        return [name for name in names if name.startswith(incomplete)]
    return []
