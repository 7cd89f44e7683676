"""Files in a folder and those below it, or in a zip archive, by their names; each is read as long as it is what it was."""

import bisect
import itertools
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from contrasim_cli.errors import InputError
from contrasim_cli.input_files import readable
from contrasim_cli.names import quoted
from contrasim_cli.snapshot import Snapshot
from contrasim_cli.store.folders import State, check_state, member, state, state_of

MAX_DEPTH = 16


class Tree(ABC):
    """Files by name, the parts of which are separated by slashes; `files` are those of a folder, where they are."""

    path: Path
    names: Sequence[str]  # sorted
    files: tuple[Path, ...] = ()

    def __contains__(self, name: str) -> bool:
        """Whether there is such a file."""
        place = bisect.bisect_left(self.names, name)
        return place < len(self.names) and self.names[place] == name

    def below(self, prefix: str) -> Iterator[str]:
        """The names that begin so."""
        rest = itertools.islice(self.names, bisect.bisect_left(self.names, prefix), None)
        return itertools.takewhile(lambda name: name.startswith(prefix), rest)

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file."""

    @abstractmethod
    def read(self, name: str, start: int, length: int) -> bytes:
        """So many bytes of a file from `start`, or fewer at its end."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""


class Folder(Tree):
    """A folder of the file system.

    Raises:
        InputError: a link leads out of it, or a file in it is none that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = Path(os.path.realpath(path))  # the link that leads to it may lead to another soon
        self._states = dict(self._walk("", 0))
        self.names = sorted(self._states)
        self.files = tuple(path / name for name in self.names)

    def _walk(self, prefix: str, depth: int) -> Iterator[tuple[str, State]]:
        if depth > MAX_DEPTH:
            raise InputError(f"{quoted(self.path)}: folders are nested deeper than {MAX_DEPTH}")
        with readable(self.path / prefix), os.scandir(self._root / prefix) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(f"{name}/", depth + 1)
                elif entry.is_file(follow_symlinks=False):
                    yield name, state_of(entry.stat())
                else:
                    yield name, state(member(self._root, name, self.path))

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._states[name][2]

    def read(self, name: str, start: int, length: int) -> bytes:
        """So many bytes of a file."""
        with readable(self.path / name), (self._root / name).open("rb") as stream:
            stream.seek(start)
            content = stream.read(length)
            now = state_of(os.fstat(stream.fileno()))  # its name may lead to another file by now, and to the same again
        check_state(self.path / name, self._states[name], now)
        return content

    def close(self) -> None:
        """Close nothing: nothing is open."""


class Archive(Tree):
    """A zip archive; the folder in which all of its files are, if there is one, is no part of their names."""

    def __init__(self, file: Snapshot) -> None:
        self.path = file.path
        self._file, self._state = file, file.identity()
        self._zip = zipfile.ZipFile(file.reader())
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        first = {info.filename.partition("/")[0] for info in infos}
        prefix = f"{first.pop()}/" if len(first) == 1 and all("/" in info.filename for info in infos) else ""
        self._infos = {info.filename.removeprefix(prefix): info for info in infos}
        self.names = sorted(self._infos)
        if len(self.names) < len(infos):
            raise ValueError("two of its files have the same name")

    def size(self, name: str) -> int:
        """Bytes of a file once it is unpacked."""
        return self._infos[name].file_size

    def read(self, name: str, start: int, length: int) -> bytes:
        """So many bytes of a file; its checksum is verified if it is read to its end."""
        with self._zip.open(self._infos[name]) as stream:
            stream.seek(start)
            content = stream.read(length)
        check_state(self.path, self._state, self._file.identity())
        return content

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()
