"""The log of a run: one JSON object per step and line, which a resumed run goes on with where its state stands."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from contrasim_cli.errors import OutputError
from contrasim_cli.names import quoted
from contrasim_cli.output_files import write_atomic, writing


class Journal(AbstractContextManager["Journal"]):
    """Lines `{"step": 1, "epoch": 1, "loss": …}`; steps are counted over the whole run. Without a path nothing is kept."""

    def __init__(self, path: Path | None, steps_done: int = 0) -> None:
        self.path = path
        if path is None:
            return
        kept = [line for line in _lines(path) if _step(line) <= steps_done] if steps_done else []
        write_atomic(path, "".join(kept).encode(), force=True)
        with writing(path):
            self._stream = path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        """Add a line."""
        if self.path is not None:
            with writing(self.path):
                self._stream.write(json.dumps(values) + "\n")
                self._stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is None:
            return
        try:
            self._stream.close()
        except OSError as problem:  # of what could not be written before, which is the error then
            if error is None:
                raise OutputError(f"{quoted(self.path)}: cannot be written: {problem.strerror}") from problem


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _step(line: str) -> float:
    """The step a line is of; infinite where the line was cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
