"""Files that are cut, flipped and overwritten: refused in a line, or read as they were; no crash, no hang, no wrong number."""

from pathlib import Path

import pytest
from faults.conftest import Figures
from faults.damage import DAMAGES, KINDS, Tally, broken, survey
from faults.warm import Warm
from helpers import run
from stores import values, write

SHORT = {
    ("store.h5", "cut"): 200, ("store.h5", "flipped"): 500, ("unsealed.h5", "cut"): 20, ("unsealed.h5", "flipped"): 100,
    ("encoder.pt", "cut"): 200, ("encoder.pt", "flipped"): 500,
}  # fmt: skip
MANY = {
    "store.h5": 10,
    "unsealed.h5": 4,
    "encoder.pt": 2,
    "plain.h5": 3,
    "sentences.h5": 3,
}  # times as many in the long run
FEW = 12  # of every other kind of file and of damage


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_refused_or_read_as_they_were(
    warm: Warm, tmp_path: Path, long: bool, name: str, figures: Figures
) -> None:
    tally = Tally()
    for damage in DAMAGES:
        count = MANY.get(name, 1) * 500 if long else SHORT.get((name, damage), FEW)
        survey(warm, tmp_path / "work", name, damage, count, tally)
        figures.add(f"{damage}: {name}", count)
    for said, count in tally.counts.items():
        figures.add(f"damaged files {said}", count)
    assert not tally.failures
    assert tally.counts["refused"] > (0 if name == "array.npy" else 10)


def test_the_number_that_comes_out_is_the_true_one(tmp_path: Path) -> None:
    """Through the command line; a store of others may be damaged without anybody noticing, one of ours may not."""
    KINDS["store.h5"].make(tmp_path / "a.h5")
    write(tmp_path / "b.h5", {"z": values(seed=3)})
    compare = ("baseline", tmp_path / "b.h5", tmp_path / "a.h5", "--layers-b", "x", "--format", "value")
    content, right = (tmp_path / "a.h5").read_bytes(), run(*compare)
    assert right.code == 0
    codes = set()
    for number in range(25):
        (tmp_path / "a.h5").write_bytes(broken(content, "flipped", number))
        found = run(*compare)
        codes.add(found.code)
        if found.code:
            assert (found.code, found.stdout, found.stderr.count("\n")) == (3, "", 1)
        else:
            assert found.stdout == right.stdout
    assert 3 in codes
