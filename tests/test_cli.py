"""The command contract: light start-up, one line per problem, exit codes, signals, and streams that go away."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence, Set
from pathlib import Path

import pytest
from helpers import run
from stores import values, write

from contrasim_cli import cli, errors, launch
from contrasim_cli.errors import ContraSimError, InputError, MismatchError, Problems, UsageError, raise_all
from contrasim_cli.measures import MEASURES
from contrasim_cli.version import __version__

COMMANDS = ["extract", "train", "score", "baseline", "bench", "inspect", "guide"]
BENCHMARKS = ["layers", "multilingual", "image-caption", "sanity"]
HEAVY = {"torch", "faiss", "h5py", "transformers", "numpy", "safetensors", "matplotlib", "scipy", "contrasim_cli.store"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A small store."""
    return write(tmp_path / "a.h5", {"x": values(20), "y": values(20, 4)})


def python(program: str, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, args)], capture_output=True, text=True, check=False, **options
    )


# start-up

IMPORTED = """
import sys
from contrasim_cli.cli import main
try:
    main()
except SystemExit as stop:
    code = stop.code
print("imported", code, *(name for name in sys.modules), file=sys.stderr)
"""

LIGHT = [
    ["--help"],
    ["--version"],
    *([command, "--help"] for command in COMMANDS),
    *(["bench", benchmark, "--help"] for benchmark in BENCHMARKS),
    [],
    ["nonsense"],
    ["score"],
    ["inspect", "--nonsense"],
    ["baseline", "--list"],
    ["guide"],
    ["guide", "files"],
    ["guide", "nonsense"],
    ["bench", "layers", "a.h5", "b.h5", "--measure", "ckaa"],
    ["baseline", "a.h5"],
]


def imported(args: Sequence[str], among: Set[str] = HEAVY) -> tuple[int, set[str]]:
    """The exit code, and what of some modules was imported."""
    line = python(IMPORTED, *args).stderr.splitlines()[-1].split()
    assert line[0] == "imported"
    return int(line[1]), {*among} & set(line[2:])


@pytest.mark.slow
@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_help_and_usage_errors_import_nothing_heavy(args: list[str]) -> None:
    answered = {"--help", "--list", "--version", "files"} & set(args) or args == ["guide"]
    assert imported(args) == (0 if answered else 2, set())


def test_a_heavy_import_would_be_seen(store: Path) -> None:
    code, found = imported(["inspect", str(store)])
    assert code == 0
    assert {"h5py", "numpy", "contrasim_cli.store"} <= found


def test_a_run_imports_its_own_command_and_tables_where_they_are_shown(store: Path) -> None:
    others = {f"contrasim_cli.commands.{name}" for name in (*COMMANDS, "baseline")} | {"rich.table"}
    args = ["baseline", str(store), str(store)]
    assert imported(args, others) == (0, {"contrasim_cli.commands.baseline"})
    assert imported([*args, "--format", "table"], others) == (0, {"contrasim_cli.commands.baseline", "rich.table"})


LITTLE_WORK = [
    ["inspect", "a.h5", "b.h5"],
    ["baseline", "a.h5", "b.h5"],
    ["baseline", "a.h5", "b.h5", "--device", "cpu", "--bootstrap", "5", "--permutations", "5"],
    ["baseline", "a.h5", "b.h5", "--standardize", "whiten", "-o", "x.json"],
    [
        "baseline",
        "a.h5",
        "b.h5",
        *(word for name in MEASURES if not MEASURES[name].extra for word in ("--measure", name)),
    ],
    ["bench", "multilingual", "a.h5", "b.h5", "--measure", "cka", "--negatives", "faiss", "--negatives", "random"],
    ["bench", "image-caption", "a.h5", "b.h5", "--measure", "dot", "--batch-size", "8"],
    ["bench", "layers", "a.h5", "b.h5", "--measure", "procrustes"],
    ["bench", "sanity", "a.h5"],
]


@pytest.mark.slow
@pytest.mark.parametrize("args", LITTLE_WORK, ids=lambda args: " ".join(args)[:60])
def test_little_work_imports_no_torch(args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a.h5", 0), ("b.h5", 1)):
        write(tmp_path / name, {layer: values(40, 6, seed=seed + k) for k, layer in enumerate("xy")})
    code, found = imported(args)
    assert (code, found & {"torch", "faiss", "scipy", "transformers", "matplotlib"}) == (0, set())


def test_much_work_imports_torch(store: Path) -> None:
    code, found = imported(["baseline", str(store), str(store), "--precision", "bfloat16"])
    assert code == 0
    assert "torch" in found


def test_the_module_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "contrasim_cli", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"contrasim {__version__}\n", "")


@pytest.mark.slow
def test_help_names_every_command_and_option() -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(command in out for command in COMMANDS)
    for command in COMMANDS:
        assert run(command, "-h").stdout == run(command, "--help").stdout
    for words in [[c] for c in COMMANDS if c != "bench"] + [["bench", b] for b in BENCHMARKS]:
        out = run(*words, "--help").stdout
        assert all(option in out for option in ("--quiet", "--verbose", "--no-color", "--debug")), words


# usage errors

THE_COMMANDS = "the commands are extract, train, score, baseline, inspect, guide, bench"
SUFFIX = "the format follows the suffix, which is one of"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nonsense"], f"No such command 'nonsense'; {THE_COMMANDS}"),
        (["\x1b[31m\n"], rf"No such command '\x1b[31m\n'; {THE_COMMANDS}"),
        (["inspect"], "Missing argument 'files'; contrasim inspect --help explains it"),
        (["baseline", "a", "b", "--measure", "ckaa"], "--measure ckaa is unknown; did you mean cka, cknna?"),
        (["baseline", "a", "b", "--measure", "CKA"], "--measure CKA is unknown; did you mean cka?"),
        (["baseline", "a", "b", "--measure", "cka,pwcca"],
         "--measure cka,pwcca: give one name per option: --measure cka --measure pwcca"),
        (["baseline", "a", "b", "--measure", "zzz"], "--measure zzz is unknown; contrasim baseline --list shows what there is"),
        (["baseline", "a"], "baseline compares 2 or more stores, 1 given"
         "; to compare a store's layers with each other, give it twice"),
        (["baseline", "a", "b", "--memory", "lots"], "Invalid value for --memory: 'lots' is not a size; write it as 2G or 512M"),
        (["baseline", "a", "b", "--memory", "0"], "Invalid value for --memory: '0' is not a size; write it as 2G or 512M"),
        (["baseline", "a", "b", "-o", "x.doc"], f"--output x.doc: {SUFFIX} .tsv, .csv, .json, .parquet, .md, .tex, .txt"),
        (["baseline", "a", "b", "--plot", "x.doc"], f"--plot x.doc: {SUFFIX} .png, .svg, .pdf"),
    ],
)  # fmt: skip
def test_usage_errors_are_one_line(args: list[str], message: str) -> None:
    assert run(*args) == (2, "", f"contrasim: error: {message}\n")


@pytest.mark.parametrize("args", [[], ["bench"]], ids=" ".join)
def test_without_a_command_the_help_is_shown(args: list[str]) -> None:
    code, out, err = run(*args)
    assert (code, err) == (2, "")
    assert out.rstrip() == run(*args, "--help").stdout.rstrip()


@pytest.mark.parametrize(
    "args",
    [
        ["inspect", "a", "--format", "xml"],
        ["inspect", "a", "--formt", "tsv"],
        ["baseline", "a", "b", "--seed", "-1"],
        ["baseline", "a", "b", "--seed", "x" * 500],
        ["baseline", "a", "b", "--rank-tol", "2"],
        ["baseline", "a", "b", "--memory", "9" * 400 + "T"],
        ["baseline", "a", "b", "--device", "tpu"],
        ["baseline", "a", "b", "--align"],
    ],
)
def test_other_usage_errors_are_one_line_too(args: list[str]) -> None:
    code, out, err = run(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("contrasim: error: ")


# problems of inputs


def test_all_problems_are_reported_at_once(store: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"none{k}\n.h5" for k in range(12)]
    lines = [
        f"contrasim: error: {tmp_path}/none{k}\\n.h5: cannot be read: No such file or directory\n" for k in range(12)
    ]
    assert run("inspect", paths[0]) == (3, "", lines[0])
    assert run("baseline", store, *paths[:2]) == (3, "", "".join(lines[:2]))
    assert run("inspect", *paths[:10]) == (3, "", "".join(lines[:10]))
    assert run("inspect", *paths[:11]) == (3, "", "".join(lines[:10]) + "contrasim: error: … and 1 more problem\n")
    assert run("inspect", *paths) == (3, "", "".join(lines[:10]) + "contrasim: error: … and 2 more problems\n")


def test_layers_that_match_nothing_are_reported_for_every_store(store: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "b.h5", {"x": values(20)})
    assert run("baseline", store, other, "--layers", "z*") == (
        2,
        "",
        f"contrasim: error: --layers z* matches no layer of {store}; it has 2: x, y\n"
        f"contrasim: error: --layers z* matches no layer of {other}; it has 1: x\n",
    )


def test_the_lowest_exit_code_counts() -> None:
    with pytest.raises(Problems) as caught:
        raise_all([MismatchError("b"), Problems([InputError("a"), MismatchError("c")])])
    assert caught.value.exit_code == 3
    assert caught.value.lines == ["b", "a", "c"]
    raise_all([])
    with pytest.raises(MismatchError):
        raise_all([MismatchError("alone")])


def test_every_error_has_the_exit_code_of_the_contract() -> None:
    codes = {
        "ContraSimError": 1, "UsageError": 2, "InputError": 3, "MismatchError": 4, "OutputExistsError": 5, "MissingError": 6,
        "OutputError": 7, "TrainingError": 8, "Interrupted": 130, "Terminated": 143,
    }  # fmt: skip
    defined = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    assert defined.items() >= codes.items()
    assert set(defined) - set(codes) == {"Problems", "Stopped", "UnclearError"}


def test_the_reason_of_somebody_elses_error_is_short() -> None:
    assert errors.reason(ValueError("one\ntwo")) == "one"
    assert errors.reason(ValueError()) == "ValueError"
    assert len(errors.reason(ValueError("x" * 9999))) == 200


# what goes wrong inside

AGAIN = "; nothing is kept, the same command starts again"


@pytest.mark.parametrize(
    ("problem", "code", "line"),
    [
        (KeyError("a\nb"), 1, r"internal error: KeyError: 'a\nb'; --debug shows where, please report it"),
        (MemoryError(), 1, "memory ran out; ask for less at once: fewer layers, fewer rows, or a smaller batch"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            1,
            "the CUDA device's memory ran out; ask for less at once: fewer layers, fewer rows, or a smaller batch",
        ),
        (ContraSimError("odd"), 1, "odd"),
        (UsageError("odd"), 2, "odd"),
        (KeyboardInterrupt(), 130, f"interrupted{AGAIN}"),
        (KeyboardInterrupt("go on with --resume"), 130, "go on with --resume"),
        (errors.Terminated(), 143, f"terminated{AGAIN}"),
        (errors.Terminated("go on with --resume"), 143, "go on with --resume"),
    ],
)
def test_whatever_happens_is_one_line(
    store: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException, code: int, line: str
) -> None:
    def fail(paths: Sequence[Path], how: object) -> None:
        raise problem

    monkeypatch.setattr("contrasim_cli.store.open_stores", fail)
    assert run("inspect", store) == (code, "", f"contrasim: error: {line}\n")


def test_debug_shows_the_traceback_and_changes_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "none"
    line = f"contrasim: error: {missing}: cannot be read: No such file or directory\n"
    code, out, err = run("inspect", missing, "--debug")
    assert (code, out) == (3, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert "FileNotFoundError" in err
    assert err.endswith(line)
    assert run("inspect", missing) == (3, "", line)


# signals and streams

WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job of a shell does not have
import contrasim_cli.store
def wait(paths, how):
    print("go", flush=True)
    time.sleep(60)
contrasim_cli.store.open_stores = wait
from contrasim_cli.cli import main
main()
"""


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGTERM, 143, f"terminated{AGAIN}"), (signal.SIGINT, 130, f"interrupted{AGAIN}")],
)
def test_a_signal_stops_a_run_with_one_line(number: int, code: int, line: str) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WAITING, "inspect", "a.h5"]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "go\n"
        child.send_signal(number)
        out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (code, "", f"contrasim: error: {line}\n")


def shell(text: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which `contrasim` is the program and $1 … are the arguments."""
    line = f'set -o pipefail; contrasim() {{ "{sys.executable}" -m contrasim_cli "$@"; }}; {text}'
    return subprocess.run(["bash", "-c", line, "bash", *map(str, args)], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ('contrasim inspect "$1" | head -c 0', 0, ""),
        ("contrasim --help | head -c 0", 0, ""),
        ("contrasim baseline --list | head -c 0", 0, ""),
        ("contrasim baseline --list >&-", 0, ""),
        (
            'contrasim inspect "$1" > /dev/full',
            7,
            "contrasim: error: stdout: cannot be written: No space left on device\n",
        ),
        ("contrasim inspect none 2>&-", 3, ""),
        ("contrasim inspect none 2> /dev/full", 3, ""),
    ],
)
def test_streams_that_take_nothing(store: Path, line: str, code: int, error: str) -> None:
    done = shell(line, store)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", error)


def test_an_unknown_choice_is_one_line_with_the_choices() -> None:
    assert run("baseline", "a.h5", "b.h5", "--align", "foo") == (
        2,
        "",
        "contrasim: error: Invalid value for '--align': 'foo' is not one of 'order', 'ids', 'position'.\n",
    )


def test_ctrl_c_before_a_command_begins_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    done = run("baseline")
    assert (done.code, done.stdout, done.stderr) == (130, "", f"contrasim: error: interrupted{AGAIN}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("baseline", "a.h5", "b.h5", "--encoder", "e.pt"), "; contrasim score compares by a trained encoder\n"),
        (("score", "a.h5", "b.h5", "--measure", "cka"), "; contrasim baseline compares by closed-form measures\n"),
        (("train", "a.h5", "--encoder", "e.pt", "-o", "f.pt"), "--start begins with another's weights\n"),
        (
            ("baseline", "a.h5", "b.h5", "--layers", "0", "1"),
            "error: 1: there is no such file; for several layers repeat the option, --layers 0 --layers 1, or give a range, "
            "--layers 0-1\n",
        ),
    ],
)
def test_what_is_meant_is_found_elsewhere(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert done.stderr.endswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        ([], ""),
        (["--help"], ""),
        (["score", "a.h5", "b.h5"], AGAIN),
        (["bench", "layers", "a.h5", "b.h5"], AGAIN),
        (
            ["bench", "layers", "a.h5", "--train", "b.h5"],
            "; the same command starts again, with the encoders that are trained",
        ),
        (["train", "a.h5", "b.h5", "-o", "e.pt"], "; nothing is saved yet, the same command starts again"),
        (
            ["extract", "--from", "a.npz", "--shard", "0/2", "-o", "a"],
            "; the same command with --resume goes on from what is saved, if anything",
        ),
    ],
)
def test_a_command_that_is_stopped_says_how_to_go_on(arguments: list[str], end: str) -> None:
    assert launch.how_to_go_on(arguments) == end


@pytest.mark.parametrize("output", [["-o", "e.pt"], ["-oe.pt"], ["--output", "e.pt"], ["--output=e.pt"]])
@pytest.mark.parametrize(
    ("file", "more", "end"),
    [
        ("e.pt.partial", [], "--resume goes on from the saved state"),
        ("e.pt.partial", ["--force"], "--resume goes on from the saved state"),
        ("e.pt", [], "--resume goes on from the saved state"),
        ("e.pt", ["--force"], "nothing is saved yet, the same command starts again"),
        ("other", [], "nothing is saved yet, the same command starts again"),
    ],
)
def test_training_that_is_stopped_says_whether_a_state_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: list[str], file: str, more: list[str], end: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).touch()
    assert launch.how_to_go_on(["train", "a.h5", "b.h5", *output, *more]).endswith(end)


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not LARGE_PAGES.exists() or "[madvise]" not in LARGE_PAGES.read_text(), reason="programs cannot ask for large pages"
)
def test_large_arrays_come_from_large_pages() -> None:
    program = (
        "import os, resource, sys; from contrasim_cli import cli; cli._start_lightly(); import torch\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; torch.zeros(16 << 20)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    faults = []
    for asked in ({}, {"THP_MEM_ALLOC_ENABLE": "0"}):
        environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"} | asked
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        faults.append(int(done.stdout))
    assert 2 * faults[0] < faults[1]
    assert faults[1] > 10_000  # pages of 4 KiB in 64 MiB
