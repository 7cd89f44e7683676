"""What results carry so that they can be found again: the command line, the date, versions, and digests of the inputs."""

import hashlib
import math
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrasim_cli import console, distributed
from contrasim_cli.version import __version__

if TYPE_CHECKING:
    from contrasim_cli.scoring import Scorer
    from contrasim_cli.store import Store

DIGESTED = 8 << 30  # bytes of a file; to read a larger one once more may take as long as the comparison
BLOCK = 1 << 20


def run() -> dict[str, Any]:
    """The command line, to be run again, when it ended (UTC), and what it has noted and warned of, if anything."""
    ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
    notes = {"notes": list(console.settings.notes)} if console.settings.notes else {}
    return {"argv": ["contrasim", *sys.argv[1:]], "date": ended, **notes}


def versions() -> dict[str, str]:
    """The versions of the libraries that scores depend on."""
    from importlib.metadata import version

    import numpy

    return {
        "contrasim": __version__,
        "torch": version("torch"),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def of_inputs(stores: "Iterable[Store]", scorers: "Iterable[Scorer]" = ()) -> dict[str, Any]:
    """`sources`, where stores come from, by path; and `digests`, of the files of stores and encoders.

    Rank 0 alone reads files once more: it alone writes results.
    """
    if not distributed.first():
        return {}
    from contrasim_cli.store.inspection import facts

    opened = list(stores)
    sources = {str(store.path): _plain(facts(store)) for store in opened}
    return {"sources": sources, "digests": _digests(opened, scorers)}


def _plain(value: Any) -> Any:
    """What others wrote of their stores, as JSON holds it: no number that is not finite, and no other kind of object."""
    if isinstance(value, Mapping):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _digests(stores: "Iterable[Store]", scorers: "Iterable[Scorer]") -> dict[str, str | None]:
    """SHA-256 of every file that stores and encoders were read from, by path; None of those above 8 GiB.

    Of a sharded store that is its index, which holds the digests of all parts.
    """
    files = {str(path): path for store in stores for path in _files(store)}
    files |= {_encoder_name(scorer): scorer.checkpoint.path for scorer in scorers if scorer.checkpoint is not None}
    return {name: _digest(path) for name, path in files.items() if path.is_file()}


def _files(store: "Store") -> Sequence[Path]:
    from contrasim_cli.store import sharded

    return store.files[:1] if store.kind == sharded.KIND else store.files or (store.path,)


def _encoder_name(scorer: "Scorer") -> str:
    """The path of an encoder, or the name of one that comes with the package."""
    from contrasim_cli.stacking import universal

    assert scorer.checkpoint is not None
    path = scorer.checkpoint.path
    return next((name for name, file in universal.SHIPPED.items() if file == path), str(path))


def _digest(path: Path) -> str | None:
    try:
        if path.stat().st_size > DIGESTED:
            return None
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except OSError:  # moved since it was read: the scores are right, and their digest is not known
        return None
    return digest.hexdigest()
