"""What the tests of faults share: one process that forks, one folder of inputs, how long they may take, and what they count."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from faults.warm import Warm
from faults.workplace import furnish

KEPT = pytest.StashKey["Figures"]()


@dataclass
class Figures:
    """What was done, by name; also kept in a file while it is done."""

    path: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, count: int = 1) -> None:
        """Count something."""
        self.counts[name] += count
        if self.path is not None:
            self.path.write_text("".join(f"{line}\n" for line in self.lines()), encoding="utf-8")

    def lines(self) -> list[str]:
        """The figures, a line each."""
        return [f"{name}: {count}" for name, count in self.counts.items()]


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """The figures of this run, which the summary shows."""
    return request.config.stash[KEPT]


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[KEPT] = Figures(config.getoption("--faults-figures"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the figures of a long run."""
    counted = config.stash[KEPT].lines() if config.getoption("--faults") == "long" else []
    for line in counted:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """The process that forks."""
    with Warm() as process:
        yield process


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    return furnish(tmp_path_factory.mktemp("inputs") / "inputs")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether hours may be spent."""
    return bool(request.config.getoption("--faults") == "long")
