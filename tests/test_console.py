"""What is shown on stderr."""

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from contrasim_cli import console
from contrasim_cli.console import configure, error_line, progress

log = logging.getLogger("contrasim_cli.something")


@pytest.fixture(autouse=True)
def _settings_kept() -> Iterator[None]:
    logger, before = logging.getLogger("contrasim_cli"), vars(console.settings).copy()
    state = logger.handlers[:], logger.level, logger.propagate
    yield
    vars(console.settings).update(before)
    logger.handlers[:], logger.level, logger.propagate = state


def show(capsys: pytest.CaptureFixture[str], quiet: bool = False, verbose: bool = False) -> str:
    """What a run shows of a record of every level."""
    configure(quiet=quiet, verbose=verbose, no_color=False, debug=False)
    log.debug("one")
    log.info("two %d", 2)
    log.warning("three\nlines\x1b[31m")
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_notes_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    usual = "contrasim: note: two 2\ncontrasim: warning: three lines\\x1b[31m\n"
    assert show(capsys) == usual
    assert show(capsys, verbose=True) == "contrasim: debug: one\n" + usual
    assert show(capsys, quiet=True) == ""


def test_an_error_is_one_line_and_shown_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure(quiet=True, verbose=False, no_color=False, debug=False)
    error_line("a\nb\r\nc\x1b]0;title\x07\u2028d " + "long " * 100)
    err = capsys.readouterr().err
    assert err == "contrasim: error: a b c\\x1b]0;title\\x07 d " + "long " * 100 + "\n"


def test_nobody_reading_stderr_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            tried.append(text)
            raise BrokenPipeError

    configure(quiet=False, verbose=False, no_color=False, debug=False)
    monkeypatch.setattr(sys, "stderr", Gone())
    error_line("a")
    log.warning("b")
    assert len(tried) >= 2


def test_color_is_switched_off_by_option_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def color(value: str | None, option: bool) -> bool:
        monkeypatch.delenv("NO_COLOR", raising=False)
        if value is not None:
            monkeypatch.setenv("NO_COLOR", value)
        configure(quiet=False, verbose=False, no_color=option, debug=False)
        return console.settings.color

    assert color(None, False)
    assert color("", False)  # as no-color.org has it: present and not empty
    assert not color("1", False)
    assert not color(None, True)


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that progress reads."""
    made = Clock()
    monkeypatch.setattr(console, "time", made)
    return made


def test_a_batch_log_gets_a_line_about_every_30_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    console.settings.quiet = False
    with progress("training", 1000, "batches") as advance:
        for _ in range(100):
            clock.now += 1
            advance(2, "loss 0.5")
    assert capsys.readouterr().err.splitlines() == [
        "contrasim: training: 60/1000 batches, 2 batches/s, 0:07:50 left, loss 0.5",
        "contrasim: training: 120/1000 batches, 2 batches/s, 0:07:20 left, loss 0.5",
        "contrasim: training: 180/1000 batches, 2 batches/s, 0:06:50 left, loss 0.5",
    ]


def test_what_was_done_earlier_does_not_count_for_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    console.settings.quiet = False
    with progress("training", 1000, "steps") as advance:
        advance(800, earlier=True)
        clock.now += 30
        advance(60)
    assert capsys.readouterr().err == "contrasim: training: 860/1000 steps, 2 steps/s, 0:01:10 left\n"


def test_short_work_shows_nothing_and_odd_totals_no_nonsense(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    console.settings.quiet = False
    with progress("reading", 10, "rows") as advance:
        clock.now += 29
        advance(10)
        assert capsys.readouterr().err == ""
        clock.now += 1
        advance(0)
        clock.now += 30
        advance(123_456_780)
    assert capsys.readouterr().err.splitlines() == [
        "contrasim: reading: 10/10 rows, 0.333 rows/s, 0:00:00 left",
        "contrasim: reading: 123456790/10 rows, 2057613 rows/s, 0:00:00 left",
    ]


def test_quiet_shows_no_progress(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    console.settings.quiet = True
    with progress("reading", 10, "rows") as advance:
        clock.now += 100
        advance()
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console.settings.quiet = False
    drawn = {}
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress("reading", 4, "rows") as advance:
            advance(4, "note")
        drawn[type(stream)] = stream.getvalue()
    assert "4/4 rows" in drawn[Terminal]
    assert "rows/s" in drawn[Terminal]
    assert drawn[io.StringIO] == ""
