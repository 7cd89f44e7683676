"""Through how many of the package's files does a command pass? Counted by tracing it on the sample data.

Run: python tests/studies/hops.py [CHECKOUT]

A file counts if one of its functions runs while the command does; what runs while a module is imported does not count. The child
process of a rehearsal is another process and does not count either.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

VIEWS = [f"sample_data/multilingual/{{part}}/{name}.h5" for name in ("ar", "en", "ru")]
COMMANDS = {
    "baseline": ["baseline", "sample_data/layers/test/seed_0.h5", "sample_data/layers/test/seed_1.h5"],
    "bench multilingual --train": [
        "bench", "multilingual", *(view.format(part="test") for view in VIEWS),
        *(word for view in VIEWS for word in ("--train", view.format(part="train"))),
        "--epochs", "1", "--encoder-dir", "{folder}",
    ],
}  # fmt: skip
GOALS = {"baseline": 25, "bench multilingual --train": 45}


def is_importing(frame: FrameType | None) -> bool:
    """Whether this frame is within the import of a module."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def traced(words: list[str], found: Path) -> None:
    """Run a command in this process, and write which files of the package its functions are in."""
    import contrasim_cli

    root, files = f"{Path(contrasim_cli.__file__).parent}{os.sep}", set[str]()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(root) and path not in files and not is_importing(frame.f_back):
            files.add(path)

    sys.argv = ["contrasim", *words]
    parent = os.getpid()
    from contrasim_cli.cli import main as run

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
        if os.getpid() == parent:
            found.write_text(json.dumps(sorted(path.removeprefix(root) for path in files)))


def hops(checkout: Path, words: list[str]) -> list[str]:
    """The files of a checkout's package that a command passes through."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "files.json"
        command = [
            sys.executable,
            __file__,
            "--into",
            str(found),
            "--",
            *(word.format(folder=folder) for word in words),
        ]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 8) or not found.exists():
            raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
        return list(json.loads(found.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?", default=Path(__file__).parents[2])
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    if "--into" in sys.argv:
        at = sys.argv.index("--")
        traced(sys.argv[at + 1 :], Path(sys.argv[at - 1]))
        return
    options = parser.parse_args()
    for name, words in COMMANDS.items():
        files = hops(options.checkout.resolve(), words)
        print(f"{name}: {len(files)} files (goal: {GOALS[name]})")
        print("  " + "\n  ".join(files))


if __name__ == "__main__":
    main()
