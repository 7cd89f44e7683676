"""Reading one block ahead of the one that is in use."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Block = TypeVar("Block")


def read_ahead(read: Callable[[Key], Block], keys: Sequence[Key], ahead: bool = True) -> Generator[Block, None, None]:
    """`read(key)` for each key in turn, the next one in a thread while one is in use, unless there is no room for two.

    No more than two are held here, and one without reading ahead. Close the iterator where it is not read to its end.
    """
    with ThreadPoolExecutor(1) as reader:
        coming: Future[Block] | None = None
        for k, key in enumerate(keys):
            block = coming.result() if coming else read(key)
            coming = reader.submit(read, keys[k + 1]) if ahead and k + 1 < len(keys) else None
            yield block
            del block  # before the next but one is read
