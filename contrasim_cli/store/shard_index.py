"""Writing the index of a sharded store, once all of its parts are there: whoever finishes the last one does it.

Everybody who finds the same parts writes the same index.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from contrasim_cli.errors import InputError, MismatchError, OutputError, OutputExistsError
from contrasim_cli.names import quoted
from contrasim_cli.output_files import write_atomic, writing
from contrasim_cli.snapshot import ATTEMPTS, PAUSE, identity_of
from contrasim_cli.store.folders import member
from contrasim_cli.store.sharded import INDEX, NAME, Index, Part, Read, contents, part_name, read_index
from contrasim_cli.store.store import IdHashes, KnownIds, id_hashes
from contrasim_cli.store.unknown_tokens import TOKENS, UNKNOWN

SORTED_IDS = 16 << 20  # of which eight bytes each are sorted at once, to find those that occur twice
OURS = re.compile(rf"{re.escape(INDEX)}|{NAME.pattern}(\.parts)?")
SHARD = "shard"  # what of the configuration is a part's own: its number, of how many, and where its items begin and end


def check_folder(folder: Path, count: int) -> None:
    """Refuse a folder that cannot become a sharded store of so many parts.

    Raises:
        OutputExistsError: it holds something else, or parts of another number.
        OutputError: it is a file, or cannot be made or written to.
    """
    where = quoted(folder)
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise OutputError(f"{where}: is a file; a sharded store is a folder, give the name of one")
        if not folder.absolute().parent.is_dir():
            raise OutputError(f"{where}: cannot be made: there is no folder {quoted(folder.absolute().parent)}")
        return
    with writing(folder):
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    for name in names:
        part = NAME.match(name)
        if not OURS.fullmatch(name):
            raise OutputExistsError(
                f"{where}: holds {quoted(name)}, which is not part of a sharded store; give a folder of its own"
            )
        if part and int(part[2]) != count:
            raise OutputExistsError(
                f"{where}: holds {quoted(name)}, and {count} parts are to be written; give that number of parts, or another folder"
            )


def prepare_folder(folder: Path, count: int) -> None:
    """Make the folder of a sharded store of so many parts, if it is not there.

    Raises:
        OutputExistsError, OutputError: as `check_folder`.
    """
    check_folder(folder, count)
    with writing(folder):
        folder.mkdir(exist_ok=True)


def write_index(folder: Path, count: int, open_part: Read) -> Index:
    """Write the index of a folder in which all parts are, and read the ids of all of them; one that is up to date stays.

    Raises:
        InputError: a part is damaged.
        MismatchError: parts were made in different ways.
        OutputError: the index cannot be written.
    """
    for attempt in range(ATTEMPTS):
        time.sleep(attempt * PAUSE)
        paths = [member(folder, part_name(k, count)) for k in range(count)]
        before = [identity_of(path) for path in paths]
        index = _written_index(folder, paths, open_part)
        # another process may have replaced a part meanwhile, and have written its index before this one
        if [identity_of(path) for path in paths] == before:
            return index
    raise InputError(f"{quoted(folder)}: its parts keep being replaced; wait until they have been written")


def _written_index(folder: Path, paths: Sequence[Path], open_part: Read) -> Index:
    seen = [_seen(path, open_part) for path in paths]
    first = seen[0]
    for path, one in zip(paths[1:], seen[1:], strict=True):
        _check_alike(first, one, path)
    _check_joined(seen, paths)
    there = _index_there(folder)
    if there is not None and there.parts == [one.part for one in seen]:
        return there
    known = _known(folder, paths, open_part, sum(one.part.rows for one in seen), first.automatic)
    index = Index(
        rows=sum(one.part.rows for one in seen),
        layers=first.layers,
        ids={"automatic": first.automatic, "source": first.source, "digest": known.digest, "repeated": known.repeated},
        parts=[one.part for one in seen],
        attrs=_attrs([one.attrs for one in seen]),
        provenance=_provenance([one.provenance for one in seen]),
    )
    write_atomic(folder / INDEX, index.text().encode(), force=True)
    return index


def _index_there(folder: Path) -> Index | None:
    """The index that the folder has, if it can be read."""
    try:
        return read_index(folder / INDEX)
    except InputError:
        return None


@dataclass(frozen=True)
class _Seen:
    """What a part says of itself."""

    part: Part
    layers: Sequence[tuple[str, int, str]]
    automatic: bool
    source: str | None
    attrs: Mapping[str, str]
    provenance: Mapping[str, Any]

    @property
    def shard(self) -> list[int] | None:
        """Its number, of how many, and where its items begin and end; None of a store that was not made as a part."""
        found: list[int] | None = self.provenance.get("config", {}).get(SHARD)
        return found

    @property
    def config(self) -> dict[str, Any]:
        """How it was made, without which part it is."""
        return {name: value for name, value in self.provenance.get("config", {}).items() if name != SHARD}


def _seen(path: Path, open_part: Read) -> _Seen:
    store = open_part(path)
    try:
        digests = contents(store)
        if store.ids is None or store.digest is None or set(digests) != set(store.layers):
            raise InputError(f"{quoted(path)}: has no ids, or lacks digests; extract it again with --force")
        part = Part(path.name, store.n_rows, path.stat().st_size, store.digest, digests)
        layers = [(layer.name, layer.width, layer.dtype.name) for layer in store.layers.values()]
        return _Seen(part, layers, store.ids.automatic, store.ids.source, store.attrs, store.provenance)
    finally:
        store.close()


def _check_alike(first: _Seen, other: _Seen, path: Path) -> None:
    """Refuse parts that were made in different ways.

    Raises:
        MismatchError: they were.
    """
    names = dict.fromkeys((*first.config, *other.config))
    why = next((name for name in names if first.config.get(name) != other.config.get(name)), None)
    if why is None and (first.layers, first.automatic, first.source) != (other.layers, other.automatic, other.source):
        why = "layers or ids"
    if why is None and (first.shard is None) != (other.shard is None):
        why = "part"
    if why is not None:
        raise MismatchError(
            f"{quoted(path)}: was made in another way than {quoted(first.part.file)} ({why.replace('_', ' ')} differs); "
            "make one of them again with --force"
        )


def _check_joined(seen: Sequence[_Seen], paths: Sequence[Path]) -> None:
    """Refuse parts that are others than their names say, or between which items are missing, or are there twice.

    Raises:
        MismatchError: there are such.
    """
    end = 0
    for number, (one, path) in enumerate(zip(seen, paths, strict=True)):
        if one.shard is None:
            continue
        place, count, first, stop = one.shard
        if (place, count) != (number, len(seen)):
            raise MismatchError(
                f"{quoted(path)}: was made as part {place} of {count}; give it its name again, or make this part with --force"
            )
        if first != end:
            raise MismatchError(
                f"{quoted(path)}: begins with item {first} where the part before it ends with item {end - 1}: they were cut with "
                "another --memory; make all parts with the same one (--force)"
            )
        end = stop


def _attrs(attrs: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all parts say of themselves, made when the last of them was."""
    shared = {name: value for name, value in attrs[0].items() if all(one.get(name) == value for one in attrs)}
    return {**shared, "created": max(one.get("created", "") for one in attrs)}


def _provenance(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all parts say of how they were made, and what is counted in them together."""
    shared = {name: value for name, value in found[0].items() if all(one.get(name) == value for one in found)}
    config = {name: value for name, value in found[0].get("config", {}).items() if name != SHARD}
    shared |= {
        "config": config,
        "config_digest": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
    }
    if "truncated_rows" in found[0]:
        shared["truncated_rows"] = sum(one.get("truncated_rows", 0) for one in found)
    for name in (TOKENS, UNKNOWN):
        if all(name in one for one in found):
            shared[name] = sum(one[name] for one in found)
    if "left_out" in found[0]:
        shared["left_out"] = list(dict.fromkeys(name for one in found for name in one.get("left_out", ())))
    return shared


def _blocks(paths: Sequence[Path], open_part: Read) -> Iterator[IdHashes]:
    """Hashes of all ids, block by block."""
    for path in paths:
        store = open_part(path)
        try:
            assert store.ids is not None
            yield from map(id_hashes, store.ids.blocks())
        finally:
            store.close()


def _known(folder: Path, paths: Sequence[Path], open_part: Read, n_rows: int, automatic: bool) -> KnownIds:
    """The digest of all ids and those that occur twice, in one pass and a bounded memory.

    Half of each hash is kept, in files that vanish by themselves, and sorted; where two halves are equal, whole hashes decide.
    """
    everything, twice = hashlib.sha256(), []
    with writing(folder), ExitStack() as stack:  # a file whose last bytes have no room says so when it is closed
        count = 0 if automatic else -(-n_rows // SORTED_IDS)
        files = [stack.enter_context(TemporaryFile(dir=folder, prefix=".")) for _ in range(count)]
        for hashes in _blocks(paths, open_part):
            everything.update(hashes.tobytes())
            halves = _halves(hashes)
            for k, file in enumerate(files):
                file.write((halves if count == 1 else halves[halves % count == k]).tobytes())
        for file in files:
            file.seek(0)
            halves = np.fromfile(file, np.uint64)
            halves.sort()
            twice.append(np.unique(halves[1:][halves[1:] == halves[:-1]]))
    suspects = np.sort(np.concatenate(twice)) if twice else np.empty(0, np.uint64)
    return KnownIds(everything.hexdigest(), _repeated(_blocks(paths, open_part), suspects) if len(suspects) else None)


def _halves(hashes: IdHashes) -> npt.NDArray[np.uint64]:
    halves: npt.NDArray[np.uint64] = hashes.view(np.uint64).reshape(-1, 2)[:, 0]
    return halves


def _repeated(blocks: Iterator[IdHashes], suspects: npt.NDArray[np.uint64]) -> tuple[int, int] | None:
    """The rows of the first id that occurs twice, among those whose hashes begin with one of the halves."""
    first: dict[bytes, int] = {}
    start = 0
    for hashes in blocks:
        for place in np.flatnonzero(np.isin(_halves(hashes), suspects)).tolist():
            name = hashes[place].tobytes()
            if name in first:
                return first[name], start + place
            first[name] = start + place
        start += len(hashes)
    return None
