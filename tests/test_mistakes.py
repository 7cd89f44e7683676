"""A hundred mistakes of a user, each with its exit code and one line per problem that says what to do.

`mistakes.txt` holds them: a code and a command, and beneath them the lines; `…` stands for the rest of a line, which may change.
"""

import re
from pathlib import Path

import made
import numpy as np
import pytest
from helpers import run

TEXT = (Path(__file__).parent / "mistakes.txt").read_text()
MISTAKES = [block.split("\n") for block in TEXT.strip().split("\n\n")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores a, b, of other rows and of another width; encoders; files that are none of these."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, layers in zip("ab", made.related(2, 3, 40, (6,)), strict=True):
        made.store(folder / f"{name}.h5", layers)
    made.store(folder / "short.h5", {"l": np.ones((5, 6)) + np.arange(5)[:, None]}, ids=[f"q{k}" for k in range(5)])
    made.store(folder / "wide.h5", {"l": np.random.default_rng(0).normal(size=(40, 9))})
    made.encoder_file(folder / "e.pt", widths=(6,))
    made.encoder_file(folder / "e9.pt", widths=(9,))
    (folder / "dir").mkdir()
    texts = {"empty.h5": "", "junk.h5": "hello" * 50, "t.txt": "x\ty\n1\t2\n", "junk.pt": "no", "x.json": "{", "have.tsv": "",
             "s.tsv": "en\tfr\nhello\tbonjour\n"}  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    arrays = {
        "nan": np.full((40, 3), np.nan),
        "turned": np.random.default_rng(0).normal(size=(6, 40)),
        "one": np.ones(7),
        "str": np.array(["a"]),
        "obj": np.array([{}], dtype=object),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=name == "obj")
    return folder


def test_there_are_enough() -> None:
    assert len(MISTAKES) >= 80
    assert len({lines[0] for lines in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize("lines", MISTAKES, ids=lambda lines: lines[0].partition("contrasim ")[2])
def test_each_says_what_to_do(lines: list[str], files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    code, command = re.fullmatch(r"(\d+)  contrasim ?(.*)", lines[0]).groups()  # type: ignore[union-attr]
    done = run(*command.split())
    assert done.code == int(code)
    assert done.code > 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("contrasim: error: ")]
    for line, expected in zip(errors, lines[1:], strict=False):
        whole, _, rest = expected.strip().partition("…")
        said = line.removeprefix("contrasim: error: ")
        assert said.startswith(whole) if rest or expected.endswith("…") else said == whole
    assert min(len(errors), 2) == len(lines) - 1
    assert "Traceback" not in done.stderr
    assert sorted(files.iterdir()) == before
