"""Blocks that are read one ahead: in their order, no more than two at a time, and no thread left behind."""

import gc
import threading
import weakref
from contextlib import closing
from itertools import pairwise

import pytest

from contrasim_cli.rows import read_ahead


class Block:
    """Something that can be watched."""

    def __init__(self, key: int) -> None:
        self.key = key


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_blocks_come_in_order_and_are_let_go_of(ahead: bool, count: int) -> None:
    alive: weakref.WeakSet[Block] = weakref.WeakSet()
    most = 0

    def read(key: int) -> Block:
        nonlocal most
        block = Block(key)
        alive.add(block)
        gc.collect()
        most = max(most, len(alive))
        return block

    keys = []
    for block in read_ahead(read, range(count), ahead):
        keys.append(block.key)
        del block
    assert keys == list(range(count))
    assert most <= (2 if ahead else 1)


def test_the_next_is_read_while_one_is_in_use() -> None:
    read = [threading.Event() for _ in range(4)]
    for key, following in pairwise(range(4)):
        blocks = read_ahead(lambda k: read[k].set() or k, range(key, 4))
        with closing(blocks):
            assert next(blocks) == key
            assert read[following].wait(5)
    assert threading.active_count() == 1 or all(not t.name.startswith("ThreadPool") for t in threading.enumerate())


def test_an_error_comes_where_its_block_would() -> None:
    def read(key: int) -> int:
        if key == 2:
            raise ValueError("no such block")
        return key

    blocks = read_ahead(read, range(4))
    assert [next(blocks), next(blocks)] == [0, 1]
    with pytest.raises(ValueError, match="no such block"):
        next(blocks)
