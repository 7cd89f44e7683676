"""Atheris on the readers of files: whatever bytes a file holds, it is read or refused in a line.

Run: python tests/faults/fuzz_readers.py KIND CORPUS… [options of libFuzzer, such as -max_total_time=1800]

KIND is that of `damage.KINDS` (plain.h5, archive.npz, …). A crash of HDF5 in the child process that tries a file is no failure; one
in this process is, and so is an error that is none of contrasim's. Without KIND the corpus is written: a small file of each kind.
"""

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"


def write_corpus() -> None:
    """A small file of every kind that has none."""
    from faults.damage import KINDS

    for name, kind in KINDS.items():
        if (CORPUS / name / "whole").exists():
            continue
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(kind.make(Path(folder) / name), CORPUS / name / "whole")


def main() -> None:
    """Fuzz one kind until something fails or time is up."""
    import atheris

    with atheris.instrument_imports(include=["contrasim_cli.store", "contrasim_cli.encoder", "contrasim_cli.archives"]):
        import contrasim_cli.encoder
        import contrasim_cli.store  # noqa: F401
    from faults.damage import KINDS

    from contrasim_cli.errors import ContraSimError

    kind = KINDS[sys.argv[1]]
    folder = Path(tempfile.mkdtemp())

    def one(content: bytes) -> None:
        path = folder / sys.argv[1]
        path.write_bytes(content)
        try:
            kind.read(path)
        except ContraSimError as error:
            if error.exit_code not in {2, 3, 4}:  # 2: what was said of the file is not about what became of it
                raise AssertionError("another kind of error") from error

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    if len(sys.argv) == 1:
        write_corpus()
    else:
        main()
