"""What ranks know of each other: errors, which one tells the others, and signs of life.

An error is told through the store of the ranks, where the first one counts. Every rank keeps a connection to rank 0 open, which the
kernel closes when its process ends, whatever it was doing: a rank that is killed is known at once. Every rank also counts up a
number in the store every few seconds: a machine that vanishes, which closes nothing, is known after some minutes. A rank that still
works while another one has failed is asked to end by SIGTERM, whose handler lets it tidy up, and is ended where it does not.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contrasim_cli import console

LOST_SECONDS = 280.0  # without a sign of life of a rank
BEAT_SECONDS = 5.0
LOOK_SECONDS = 0.5  # between two looks for an error of another rank
POST_SECONDS = 2.0  # until a rank whose connection is closed, and of which nothing is told, counts as killed
GRACE_SECONDS = 3.0  # for a rank to meet another one's error by itself
LINGER_SECONDS = 5.0  # that a rank with an error waits for the others to have read it
LAUNCHED = (
    "CONTRASIM_RANKS"  # set for ranks that `--ranks` starts: the file in which they leave words to their launcher
)
GOODBYE = b"!"
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


@dataclass(frozen=True)
class Failure:
    """What a rank tells the others: its lines, exit code and number; `gone` where it could not tell anything itself."""

    lines: Sequence[str]
    code: int
    rank: int
    gone: bool = False


def launched() -> bool:
    """Whether `--ranks` started this process, whose launcher says which rank was killed."""
    return bool(os.environ.get(LAUNCHED))


def end_with_launcher() -> None:
    """Have a rank that `--ranks` started told by SIGTERM when its launcher is gone, as where that is killed; on Linux."""
    if launched() and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)


def leave_words(lines: Sequence[str]) -> None:
    """Leave the launcher what it says of a signal that ended the ranks, or of a rank that is gone."""
    Path(os.environ[LAUNCHED]).write_text("; ".join(lines), encoding="utf-8")


class Peers:
    """The other ranks as this one knows them."""

    def __init__(self, rank: int, world: int, store: Any, address: str) -> None:
        self.rank, self.world, self.store = rank, world, store
        self.leaving = threading.Event()  # this rank ends, and needs no asking
        self._ended = threading.Event()
        self._answered = time.monotonic()  # when the store last did
        self._seen: dict[int, tuple[str, float]] = {}  # the number of a rank, and when it last changed
        self._hosts: dict[int, str] = {}
        self._host(0)  # which cannot be asked for once rank 0, and with it the store, is gone
        self._stopping = threading.Lock()
        self._first_gone = threading.Event()
        self._connections: dict[socket.socket, int | None] = {}  # the rank at the other end, once it has said so
        self._listener: socket.socket | None = None
        self._meet(address)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._attend, self._watch)]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Tell the others that this rank ends on purpose."""
        self.leaving.set()
        self._ended.set()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.sendall(GOODBYE)
        for thread in self._threads:  # one that is in torch's store when Python ends would abort
            if thread is not threading.current_thread():
                thread.join(2 * LOOK_SECONDS)

    def speaks(self) -> bool:
        """Whether this rank says what went wrong: the first one, or the next where that is gone."""
        return self.rank == 0 or (self.rank == 1 and self._first_gone.is_set())

    def without_first(self) -> bool:
        """Whether rank 0 is gone; waits for that to show, as what ends the others may come sooner."""
        return self.rank > 0 and self._first_gone.wait(LOOK_SECONDS)

    # --- errors -------------------------------------------------------------------------------------------------------

    def post(self, failure: Failure) -> Failure:
        """Tell the others; the failure that they go by, which is another one where that was told before."""
        with contextlib.suppress(Exception):
            self.store.compare_set("error", "", json.dumps(vars(failure)))
        return self.posted() or failure

    def posted(self) -> Failure | None:
        """The first failure that a rank told."""
        with contextlib.suppress(Exception):
            if self.store.check(["error"]):
                return Failure(**json.loads(self.store.get("error")))
        return self._gone(0) if self._first_gone.is_set() else None

    def wait_for_post(self) -> Failure:
        """The failure of another rank that must be the reason why a collective failed."""
        until = time.monotonic() + POST_SECONDS
        while time.monotonic() < until:
            if (found := self.posted()) is not None:
                return found
            time.sleep(0.05)
        return self.post(Failure(["another rank is gone (killed?)"], 1, -1, gone=True))

    def read(self) -> None:
        """Note that this rank knows of the failure."""
        with contextlib.suppress(Exception):
            self.store.add("read", 1)

    def linger(self) -> None:
        """Keep the store, which may be this process, until the others have read."""
        until = time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(Exception):
            while time.monotonic() < until and self.store.add("read", 0) < self.world - 1:
                time.sleep(0.05)

    def _gone(self, rank: int, why: str = "is gone (killed?)") -> Failure:
        return Failure([f"rank {rank} on {self._host(rank)} {why}"], 1, rank, gone=True)

    def _host(self, rank: int) -> str:
        if rank not in self._hosts:
            self._hosts[rank] = "its machine"
            with contextlib.suppress(Exception):
                self._hosts[rank] = self.store.get(f"here/{rank}").decode()
        return self._hosts[rank]

    # --- connections --------------------------------------------------------------------------------------------------

    def _meet(self, address: str) -> None:
        """Open the connections; where a network lets none through, closed connections of collectives have to tell."""
        with contextlib.suppress(Exception):
            if self.rank == 0:
                self.store.set("door", str(self._open(address)))
            elif port := int(self.store.get("door")):
                connection = socket.create_connection((address, port), timeout=POST_SECONDS)
                connection.sendall(self.rank.to_bytes(4, "big"))
                self._connections[connection] = 0

    def _open(self, address: str) -> int:
        """The port at which rank 0 listens, 0 where it cannot."""
        try:
            family = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0][0]
            self._listener = socket.create_server(("", 0), family=family, backlog=self.world)
        except OSError:
            return 0
        return int(self._listener.getsockname()[1])

    def _attend(self) -> None:
        """Notice connections that close, and a store that answers no more."""
        with selectors.DefaultSelector() as selector:
            for one in (self._listener, *self._connections):
                if one is not None:
                    selector.register(one, selectors.EVENT_READ)
            while not self._ended.wait(0):
                for key, _ in selector.select(LOOK_SECONDS):
                    self._hear(selector, key.fileobj)
                silent = time.monotonic() - self._answered > LOST_SECONDS
                if self.rank and silent and not self._stopping.locked():
                    self._first_gone.set()
                    self._end(self._lost(0))

    def _hear(self, selector: selectors.BaseSelector, one: Any) -> None:
        if self._listener is not None and one is self._listener:
            connection, _ = self._listener.accept()
            connection.settimeout(POST_SECONDS)
            self._connections[connection] = None
            selector.register(connection, selectors.EVENT_READ)
            return
        try:
            said = one.recv(4)
        except OSError:
            said = b""
        if said and self._connections[one] is None:
            self._connections[one] = int.from_bytes(said, "big")
            return
        selector.unregister(one)
        other = self._connections.pop(one)
        one.close()
        if said != GOODBYE and other is not None and not self._ended.is_set():
            if other == 0:
                self._first_gone.set()
            threading.Thread(target=self._stop, args=[self.post(self._gone(other))], daemon=True).start()

    # --- the store ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Give signs of life, look for those of others, and for their errors."""
        beats, beaten = 0, 0.0
        watched = range(1, self.world) if self.rank == 0 else (0,)
        with contextlib.suppress(Exception):  # the store is gone, with the process that kept it
            store = self.store.clone() if hasattr(self.store, "clone") else self.store
            while not self._ended.wait(LOOK_SECONDS):
                if time.monotonic() - beaten > BEAT_SECONDS:
                    beats, beaten = beats + 1, time.monotonic()
                    store.set(f"beat/{self.rank}", str(beats))
                    for other in watched:
                        self._listen(store, other)
                if store.check(["error"]):
                    self._stop(Failure(**json.loads(store.get("error"))))
                    return
                self._answered = time.monotonic()

    def _listen(self, store: Any, other: int) -> None:
        """End where a rank has given no sign of life for too long."""
        now, key = time.monotonic(), f"beat/{other}"
        number = store.get(key).decode() if store.check([key]) else ""
        if self._seen.get(other, ("-", 0.0))[0] != number:
            self._seen[other] = (number, now)
        if now - self._seen[other][1] > LOST_SECONDS:
            if other == 0:
                self._first_gone.set()
            self._stop(self.post(self._lost(other)))

    def _lost(self, rank: int) -> Failure:
        return self._gone(rank, f"has given no sign of life for {LOST_SECONDS:.0f} s")

    # --- an end -------------------------------------------------------------------------------------------------------

    def _stop(self, failure: Failure) -> None:
        """End this process, which works while another one has failed: softly first."""
        if failure.rank == self.rank or not self._stopping.acquire(blocking=False):
            return
        if not self.leaving.wait(GRACE_SECONDS):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        if not (self.leaving.wait(GRACE_SECONDS) and self._ended.wait(2 * LINGER_SECONDS)):
            self._end(failure)

    def _end(self, failure: Failure) -> None:
        """End this process from a thread of its own: no handler runs while a collective waits."""
        if not self._first_gone.is_set():  # else the store may never answer
            self.read()
        if self.speaks() and failure.gone and launched():
            leave_words(failure.lines)
        elif self.speaks():
            console.speak()
            for line in failure.lines:
                console.error_line(line)
        sys.stderr.flush()
        os._exit(failure.code)
