"""Every error a user can cause, each with the exit code of the command contract."""

from collections.abc import Iterable, Sequence


class ContraSimError(Exception):
    """An error whose message is the one line that a user reads."""

    exit_code = 1

    @property
    def lines(self) -> Sequence[str]:
        """The problems, one line each."""
        return [str(self)]


class ContraSimWarning(UserWarning):
    """What commands print as `contrasim: warning:`, as functions of Python say it."""


class UsageError(ContraSimError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class InputError(ContraSimError):
    """An input cannot be read or holds bad values."""

    exit_code = 3


class UnclearError(InputError):
    """The shapes of a file do not say what its axes are; `remedy` is what to do, and `briefly` what is wrong, without it."""

    def __init__(self, message: str, briefly: str, remedy: str) -> None:
        super().__init__(message)
        self.briefly, self.remedy = briefly, remedy


class MismatchError(ContraSimError):
    """Inputs disagree: ids, rows or widths."""

    exit_code = 4


class OutputExistsError(ContraSimError):
    """The output is already there."""

    exit_code = 5


class MissingError(ContraSimError):
    """An optional extra or a device is missing."""

    exit_code = 6


class OutputError(ContraSimError):
    """An output could not be written."""

    exit_code = 7


class TrainingError(ContraSimError):
    """Training cannot go on: the loss is NaN or the encoder has collapsed."""

    exit_code = 8


class Stopped(BaseException):
    """The run was stopped from outside; a BaseException, so that no handler of errors swallows it."""

    exit_code = 1
    word = "stopped"


class Terminated(Stopped):
    """SIGTERM arrived."""

    exit_code = 143
    word = "terminated"


class Interrupted(Stopped):
    """Ctrl-C, which Typer would turn into a silent exit."""

    exit_code = 130
    word = "interrupted"


class Problems(ContraSimError):
    """Several problems of the inputs, reported together; the lowest exit code counts."""

    SHOWN = 10

    def __init__(self, problems: Iterable[ContraSimError]) -> None:
        found = [one for problem in problems for one in _flatten(problem)]
        self.problems = list({(one.exit_code, str(one)): one for one in found}.values())  # of a file given twice: once
        super().__init__("; ".join(map(str, self.problems)))
        self.exit_code = min(problem.exit_code for problem in self.problems)

    @property
    def lines(self) -> Sequence[str]:
        """The first ten problems, then how many more there are."""
        shown = [str(problem) for problem in self.problems[: self.SHOWN]]
        hidden = len(self.problems) - len(shown)
        return [*shown, f"… and {hidden} more problem{'s' if hidden > 1 else ''}"] if hidden else shown


def _flatten(problem: ContraSimError) -> list[ContraSimError]:
    return problem.problems if isinstance(problem, Problems) else [problem]


NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "memory allocation failed",
)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it was made of, is a lack of memory here or on the device."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, (RuntimeError, OSError)) and any(words in str(error).lower() for words in NO_MEMORY):
            return True
        error = error.__cause__
    return False


def reason(error: BaseException) -> str:
    """The first line of somebody else's error, printable, for our message in brackets."""
    line = next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def raise_all(problems: Sequence[ContraSimError]) -> None:
    """Raise the problems, if there are any."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Problems(problems)
