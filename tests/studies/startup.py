"""How long `contrasim --help` takes beside the same help of an empty Typer app with as many commands.

Run: python tests/studies/startup.py
"""

import statistics
import subprocess
import sys
import time

EMPTY = """
import typer
app = typer.Typer(name="empty", pretty_exceptions_enable=False)
for name in ("extract", "train", "score", "baseline", "inspect", "bench"):
    def command() -> None:
        "Do it."
    app.command(name)(command)
app()
"""
RUNS = 15


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Time the two in turn, and print medians and the median of the ratios of neighbours."""
    ours = [sys.executable, "-m", "contrasim_cli", "--help"]
    empty = [sys.executable, "-c", EMPTY, "--help"]
    seconds(ours), seconds(empty)
    pairs = [(seconds(ours), seconds(empty)) for _ in range(RUNS)]
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(x / y for x, y in pairs)
    print(
        f"contrasim --help   {a:.3f} s\nempty app --help   {b:.3f} s\nratio              {ratio:.2f}  (target: at most 1.5)"
    )


if __name__ == "__main__":
    main()
