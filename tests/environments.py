"""An environment of the lowest versions that pyproject.toml admits, or of the newest, and the smoke tests in it.

Run: python tests/environments.py lowest|newest [--keep FOLDER] [NAME==VERSION …]

Needs Python 3.11 or later, and a package index. NAME==VERSION takes another version than the lowest or newest: torch with its CUDA
libraries is gigabytes, and torch==2.13.0 may be at hand without. pip's own constraints (PIP_CONSTRAINT) hold too. The lowest
versions are those of every dependency and extra but `umap`, which compiles what it needs; what they need themselves pip chooses.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("audio", "hf", "peft", "plot", "match", "report", "table", "zarr")
TOOLS = ("pytest", "hypothesis")  # what the smoke tests need besides
SMOKE = (
    "tests/commands/test_score.py", "tests/store/test_open.py", "tests/store/test_as_store.py", "tests/store/test_matlab5.py",
    "tests/store/test_arrow_tables.py", "tests/store/test_zarr_arrays.py", "tests/benchmarks/test_approximate_search.py",
    "tests/plots/test_plots.py", "tests/report/test_html.py", "tests/extraction/test_pooling.py",
)  # fmt: skip
SLOW = "memory or packed_well or any_rows_in_any_order or long_text or more_than"  # of no library's version
REQUIREMENT = re.compile(r"([A-Za-z0-9-]+)(\[[a-z,]+\])?>=([0-9][0-9.]*)")


def lowest() -> dict[str, str]:
    """The lowest version of every dependency, by name.

    Raises:
        ValueError: one has no lower bound, or another bound besides.
    """
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*said["dependencies"], *(line for extra in EXTRAS for line in said["optional-dependencies"][extra])]
    wanted += [line for line in said["optional-dependencies"]["test"] if line.startswith(TOOLS)]
    found: dict[str, str] = {}
    for line in wanted:
        match = REQUIREMENT.fullmatch(line)
        if match is None:
            raise ValueError(f"{line}: expected NAME>=VERSION")
        found[match[1]] = match[3]
    return found


def requirements(which: str, others: dict[str, str]) -> list[str]:
    """What pip is to install beside contrasim itself."""
    versions = lowest()
    if which == "newest":
        return [f"{name}=={others[name]}" if name in others else name for name in versions]
    return [f"{name}=={version}" for name, version in (versions | others).items()]


def check_smoke() -> None:
    """Refuse a list of smoke tests that are not there, before minutes are spent on an environment."""
    lost = [name for name in SMOKE if not (ROOT / name).exists()]
    if lost:
        raise FileNotFoundError(f"SMOKE names tests that have moved: {', '.join(lost)}")


def build(folder: Path, wanted: list[str]) -> Path:
    """Install; gives the environment's Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *wanted, f"{ROOT}[{','.join(EXTRAS)}]"], check=True)
    subprocess.run([str(python), "-m", "pip", "check"], check=True)
    return python


def smoke(python: Path, folder: Path) -> int:
    """The smoke tests on what is installed, not on the source beside them."""
    for name in ("tests", "sample_data", "pyproject.toml", "README.md", "CHANGELOG.md"):
        source = ROOT / name
        copied = shutil.copytree if source.is_dir() else shutil.copy
        copied(source, folder / name)
    program = (
        "import contrasim_cli, importlib.metadata as m; print(contrasim_cli.__file__);"
        "print(*sorted({f'{d.name}=={d.version}' for d in m.distributions()}))"
    )
    subprocess.run([str(python), "-c", program], check=True, cwd=folder)
    return subprocess.run(
        [str(python), "-m", "pytest", "-q", "-k", f"not ({SLOW})", *SMOKE], check=False, cwd=folder
    ).returncode


def main() -> int:
    """Build one environment and test in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("which", choices=("lowest", "newest"))
    parser.add_argument("others", nargs="*", metavar="NAME==VERSION", help="in place of the lowest or newest")
    parser.add_argument("--keep", type=Path, help="make the environment in this folder, and leave it")
    given = parser.parse_args()
    check_smoke()
    others = dict(other.split("==", 1) for other in given.others)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary) / "venv"
        python = build(folder, requirements(given.which, others))
        os.environ.pop("PYTHONPATH", None)
        (Path(temporary) / "work").mkdir()
        return smoke(python, Path(temporary) / "work")


if __name__ == "__main__":
    sys.exit(main())
