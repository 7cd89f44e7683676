"""Many processes that run one command: who they are, how they share work, add up, and fail together.

The only module that imports torch.distributed, and that only where there are several ranks: with one, every function here returns
what it was given. Ranks are started by torchrun, by srun with torchrun's variables, or by `launch.py` on one machine. All run the
same command on the same inputs; the cut of work follows from data and options, never from the number of ranks, so that sums differ
by rounding alone. Rank 0 speaks and writes.
"""

import contextlib
import io
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from contrasim_cli import console
from contrasim_cli.errors import ContraSimError, Interrupted, Problems, Stopped, Terminated, UsageError
from contrasim_cli.launch import how_to_go_on
from contrasim_cli.peers import Failure, Peers, launched, leave_words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

T = TypeVar("T")

JOIN_SECONDS = 280.0  # until a rank that does not come is given up
COLLECTIVE = timedelta(days=7)  # the slowest reader decides; a dead rank is known by its closed connections
PIECE_BYTES = 256 * 2**20  # of one all-reduce
SIGNALLED = (Interrupted.exit_code, Terminated.exit_code)
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class PeerError(ContraSimError):
    """What another rank failed of, with its lines and exit code."""

    def __init__(self, lines: Sequence[str], exit_code: int) -> None:
        super().__init__("; ".join(lines))
        self._lines, self.exit_code = list(lines), exit_code

    @property
    def lines(self) -> Sequence[str]:
        """The lines of the rank that failed."""
        return self._lines


@dataclass
class _Ranks:
    """This process among the others."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    peers: Peers | None = None


_ranks = _Ranks()
_took_part = False
_tidying: list[Callable[[], object]] = []


# --- who one is ----------------------------------------------------------------------------------------------------------


def rank() -> int:
    """The number of this process, from 0."""
    return _ranks.rank


def world() -> int:
    """How many processes run the command."""
    return _ranks.world


def local_rank() -> int:
    """The number of this process on its machine."""
    return _ranks.local_rank


def first() -> bool:
    """Whether this process speaks and writes."""
    return _ranks.rank == 0


def writes() -> bool:
    """Whether this process writes files: the first one, or one that works alone."""
    return first() or _ranks.world == 1


def share(items: Sequence[T]) -> Sequence[T]:
    """This rank's run of consecutive items, which may be empty; the runs of all ranks make up the items in order."""
    start, stop = part(len(items))
    return items[start:stop]


def part(count: int) -> tuple[int, int]:
    """Where this rank's share of so many items begins and ends."""
    return parts(count)[_place()[0]]


def parts(count: int) -> list[tuple[int, int]]:
    """Where the share of every rank begins and ends."""
    ranks = _place()[1]
    return [(count * rank // ranks, count * (rank + 1) // ranks) for rank in range(ranks)]


def dealt(items: Sequence[T]) -> Sequence[T]:
    """This rank's items where they are dealt in turns, as those that differ in cost are."""
    own, count = _place()
    return items[own::count]


def _place() -> tuple[int, int]:
    """The number of this process among those that share work, and how many these are."""
    return (0, 1) if _ranks.world == 1 else (_ranks.rank, _ranks.world)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """A block in which this process works as if there were no others: nothing is shared or summed."""
    global _ranks  # noqa: PLW0603
    before = _ranks
    _ranks = _Ranks(before.rank, local_rank=before.local_rank)
    try:
        yield
    finally:
        _ranks = before


def budget_per_rank(size: int) -> int:
    """The bytes that each rank may take of what is there for all on its machine: the same number on all ranks."""
    if _ranks.world == 1:
        return size
    return int(min(gathered(size // _ranks.local_world)))


def budget_of_machine(size: int) -> int:
    """What all ranks of a machine may take where each may take so much: what does not depend on how many there are."""
    return int(min(gathered(size * _ranks.local_world)))


# --- adding up -----------------------------------------------------------------------------------------------------------


def total(*tensors: "torch.Tensor") -> None:
    """Replace tensors, on every rank, by their sums over all ranks; the same bits everywhere."""
    if _ranks.world == 1:
        return
    import torch.distributed as dist

    for tensor in map(_of_torch, tensors):
        whole = tensor if tensor.is_contiguous() and tensor.device.type == "cpu" else tensor.detach().cpu().contiguous()
        flat = whole.view(-1)
        step = max(1, PIECE_BYTES // max(1, flat.element_size()))
        for start in range(0, len(flat), step):
            dist.all_reduce(flat[start : start + step])
        if whole is not tensor:
            tensor.copy_(whole)


def _of_torch(tensor: "torch.Tensor") -> "torch.Tensor":
    """A tensor in the same memory as one of NumPy's."""
    import numpy as np
    import torch

    return torch.from_numpy(tensor.view(np.ndarray)) if isinstance(tensor, np.ndarray) else tensor


def total_of(array: "npt.NDArray[np.float64]") -> "npt.NDArray[np.float64]":
    """The sum of an array over all ranks, which is returned."""
    if _ranks.world == 1:
        return array
    import numpy as np
    import torch

    summed = np.ascontiguousarray(array)
    total(torch.from_numpy(summed))
    return summed


def spread(*tensors: "torch.Tensor", source: int = 0) -> None:
    """Replace tensors, on every rank, by those of one."""
    if _ranks.world == 1:
        return
    import torch
    import torch.distributed as dist

    for tensor in map(_of_torch, tensors):
        whole = tensor.detach().cpu().contiguous()
        flat = whole.view(-1).view(torch.uint8)  # gloo does not know every type
        for start in range(0, len(flat), PIECE_BYTES):
            dist.broadcast(flat[start : start + PIECE_BYTES], source)
        if whole.data_ptr() != tensor.data_ptr():
            tensor.copy_(whole)


def largest(tensor: "torch.Tensor") -> "torch.Tensor":
    """The largest of each value of a tensor over all ranks; NaN where one is."""
    if _ranks.world == 1:
        return tensor
    import numpy as np

    from contrasim_cli.arrays import as_tensor

    found = np.maximum.reduce(gathered_arrays(tensor.cpu().numpy()))
    return as_tensor(np.asarray(found), tensor.device)


def gathered(value: Any) -> list[Any]:
    """A value of JSON of every rank, in their order."""
    if _ranks.world == 1:
        return [value]
    return [json.loads(part.tobytes()) for part in _gathered_bytes(json.dumps(value).encode())]


def gathered_arrays(array: "npt.NDArray[Any]") -> "list[npt.NDArray[Any]]":
    """An array of every rank, in their order; shapes may differ."""
    if _ranks.world == 1:
        return [array]
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    parts = _gathered_bytes(stream.getvalue())
    return [np.load(io.BytesIO(part.tobytes()), allow_pickle=False) for part in parts]


def joined_rows(array: "npt.NDArray[Any]", axis: int = 0) -> "npt.NDArray[Any]":
    """The arrays of all ranks, one behind the other along an axis."""
    import numpy as np

    return array if _ranks.world == 1 else np.concatenate(gathered_arrays(array), axis=axis)


def joined_values(tensor: "torch.Tensor") -> "torch.Tensor":
    """Join the tensors [values] of all ranks, in their order."""
    if _ranks.world == 1:
        return tensor
    from contrasim_cli.arrays import as_tensor

    return as_tensor(joined_rows(tensor.cpu().numpy()), tensor.device)


def _gathered_bytes(data: bytes) -> "list[npt.NDArray[np.uint8]]":
    import numpy as np
    import torch
    import torch.distributed as dist

    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(_ranks.world)]
    dist.all_gather(sizes, torch.tensor([len(data)]))
    longest = max(int(size) for size in sizes)
    own = torch.zeros(longest, dtype=torch.uint8)
    own[: len(data)] = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(_ranks.world)]
    dist.all_gather(parts, own)
    return [part[: int(size)].numpy() for part, size in zip(parts, sizes, strict=True)]


def wait_for_all() -> None:
    """Return when every rank is here."""
    gathered(0)


# --- failing together ----------------------------------------------------------------------------------------------------


def agreed(work: Callable[[], T]) -> T:
    """Do work that may be refused: what one rank is refused, all are.

    Raises:
        ContraSimError: what this rank or another one met; the same on all.
    """
    if _ranks.world == 1:
        return work()
    problem: ContraSimError | None = None
    try:
        result = work()
    except ContraSimError as error:
        problem = error
    met: list[Any] = gathered(None if problem is None else {"lines": list(problem.lines), "code": problem.exit_code})
    problems = {json.dumps(one): PeerError(one["lines"], one["code"]) for one in met if one is not None}
    if problems:
        raise next(iter(problems.values())) if len(problems) == 1 else Problems(problems.values())
    return result


def check_alone(what: str) -> None:
    """Refuse to work as one of several.

    Raises:
        UsageError: there are several ranks.
    """
    if _ranks.world > 1:
        raise UsageError(f"{what} does not share its work among processes; start it once, without torchrun or srun")


def by_first(work: Callable[[], None]) -> None:
    """Let rank 0 do what is done once; what it is refused, all are."""
    agreed(work if writes() else lambda: None)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """A block in which the ranks that the environment names work together; nothing where it names one.

    An error of one rank ends all of them with its exit code, and rank 0 says it.

    Raises:
        UsageError: the environment is incomplete, or ranks do not come.
    """
    count = _count("WORLD_SIZE")
    if count <= 1:
        yield
        return
    _join(count)
    try:
        _check_arguments()
        yield
        wait_for_all()
    except BaseException as error:
        shared = _shared(error)
        if shared is error:
            raise
        raise shared from error
    finally:
        _leave()


def took_part() -> bool:
    """Whether this process has been one of several ranks, even if the others never came."""
    return _took_part


def _check_arguments() -> None:
    """Refuse ranks that were told different things: they would wait for each other, or add up what does not belong together.

    Raises:
        UsageError: they were.
    """
    first_rank, *others = gathered(sys.argv[1:])
    for other, words in enumerate(others, 1):
        for one, given in zip_longest(first_rank, words, fillvalue=""):
            if one != given:
                raise UsageError(
                    f"rank {other} was started with {given!r} where rank 0 has {one!r}; give all ranks the same options"
                )


def _count(name: str, default: int = 1) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise UsageError(
            f"the environment variable {name} is {text!r}, which is not a number; unset WORLD_SIZE to run alone"
        )
    return int(text)


def _join(count: int) -> None:
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {count}, and {', '.join(missing)} is not set; start by torchrun or --ranks, or unset WORLD_SIZE to run "
            "alone"
        )
    # lost connections are told here in one line, and not by torch in forty; read when torch is imported
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    global _ranks, _took_part  # noqa: PLW0603
    _took_part = True
    own = _count("RANK", 0)
    _ranks = _Ranks(own, count, _count("LOCAL_RANK", 0), _count("LOCAL_WORLD_SIZE"))
    until = time.monotonic() + JOIN_SECONDS
    try:
        store, *_ = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS)))
        # in the order of the ranks, so that rank 0 can say who is missing
        store.set(f"here/{own}", socket.gethostname())
        for other in range(count):
            store.wait([f"here/{other}"], timedelta(seconds=max(1.0, until - time.monotonic())))
        _ranks.peers = Peers(own, count, store, os.environ["MASTER_ADDR"])
        dist.init_process_group("gloo", store=store, rank=own, world_size=count, timeout=COLLECTIVE)
    except (dist.DistError, RuntimeError) as error:
        failed = _not_joined(error, count)
        _leave()
        raise failed from error


def _not_joined(error: BaseException, count: int) -> BaseException:
    """What a rank raises that finds the others wanting; rank 0 says it, or the next one where rank 0 did not come."""
    import torch.distributed as dist

    if _ranks.peers is not None and (failure := _ranks.peers.posted()) is not None:
        return _ending(failure, _ranks.peers)
    if _ranks.rank == 1 and isinstance(error, dist.DistNetworkError) and not launched():
        console.speak()
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        return UsageError(f"waited {JOIN_SECONDS:.0f} s for rank 0 at {place}; unset WORLD_SIZE to run alone")
    return UsageError(_why_not_joined(error, count)) if first() else Quiet(UsageError.exit_code)


def _why_not_joined(error: BaseException, count: int) -> str:
    if "timeout" in str(error).lower() or "timed out" in str(error).lower() or "clients joined" in str(error):
        return f"waited {JOIN_SECONDS:.0f} s for {count} ranks (WORLD_SIZE), and not all came; unset WORLD_SIZE to run alone"
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the ranks cannot reach each other ({line}); between machines GLOO_SOCKET_IFNAME names the network interface (eth0)"


def _leave() -> None:
    global _ranks  # noqa: PLW0603
    if _ranks.peers is not None:
        _ranks.peers.leave()
    _disconnect()
    _ranks = _Ranks(_ranks.rank)


def _disconnect() -> None:
    import torch.distributed as dist

    with contextlib.suppress(Exception):
        dist.destroy_process_group()


class Quiet(Stopped):
    """The end of a rank whose error another one says."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def _shared(error: BaseException) -> BaseException:
    """What this rank raises in place of an error: its own is told to the others, theirs is taken up.

    Of errors that all met, rank 0 says its own; others are quiet. An error of torch's collectives is a sign that another rank
    failed, whose error is looked for.
    """
    peers = _ranks.peers
    assert peers is not None
    peers.leaving.set()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends as it is, for a reason that is told
    if isinstance(error, Stopped):
        peers.without_first()  # by which a launcher stops the others
    failure = peers.posted()
    if (
        failure is None
        and not isinstance(error, (ContraSimError, Stopped, KeyboardInterrupt))
        and _of_a_collective(error)
    ):
        failure = peers.wait_for_post()
    if failure is not None:
        peers.read()
        return _ending(failure, peers)
    if isinstance(error, SystemExit):
        return error
    own = Failure(*_told(error), _ranks.rank)
    if console.settings.debug and not first() and not isinstance(error, (ContraSimError, Stopped, KeyboardInterrupt)):
        traceback.print_exception(error)  # which rank 0 cannot show
    failure = peers.post(own)
    _disconnect()  # by which those that wait for this rank know at once
    if not (launched() and own.code in SIGNALLED):  # which all get
        peers.linger()
    return _ending(failure, peers, error if failure == own else None)


def _ending(failure: Failure, peers: Peers, error: BaseException | None = None) -> BaseException:
    """What this rank ends with; `error` is its own, where the failure is that."""
    if failure.gone and failure.rank == 0:
        for work in _tidying:
            with contextlib.suppress(Exception):
                work()
    if launched() and (
        failure.gone or failure.code in SIGNALLED
    ):  # the launcher says which rank was killed, or which signal came
        if peers.speaks():
            leave_words(failure.lines)
        return Quiet(failure.code)
    if not peers.speaks():
        return Quiet(failure.code)
    console.speak()
    return error or PeerError(failure.lines, failure.code)


def tidy_after_first(work: Callable[[], object]) -> None:
    """Note what is to be removed where rank 0, which writes, is killed."""
    if _ranks.world > 1 and not first():
        _tidying.append(work)


def _told(error: BaseException) -> tuple[list[str], int]:
    if isinstance(error, ContraSimError):
        return list(error.lines), error.exit_code
    if isinstance(error, Stopped):
        return [str(error) or error.word + how_to_go_on(sys.argv[1:])], error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return [str(error) or Interrupted.word + how_to_go_on(sys.argv[1:])], Interrupted.exit_code
    if isinstance(error, BrokenPipeError):  # nobody reads stdout any more, where results are printed last
        return [], 0
    return [f"internal error: {type(error).__name__}: {error}; --debug shows where, please report it"], 1


def _of_a_collective(error: BaseException) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())
