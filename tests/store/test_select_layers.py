"""Choosing layers by name, index, range or glob."""

import pytest

from contrasim_cli.errors import UsageError
from contrasim_cli.store import select_layers

NAMES = [f"hidden_{k}" for k in range(7)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (None, NAMES),
        ([], NAMES),
        (["hidden_3"], ["hidden_3"]),
        (["0"], ["hidden_0"]),
        (["-1"], ["hidden_6"]),
        (["-7"], ["hidden_0"]),
        (["2-5"], NAMES[2:6]),
        (["6-6"], ["hidden_6"]),
        (["hidden_[135]"], ["hidden_1", "hidden_3", "hidden_5"]),
        (["*"], NAMES),
        (["5", "1-2", "hidden_5", "*_1"], ["hidden_5", "hidden_1", "hidden_2"]),
    ],
)
def test_patterns(patterns: list[str] | None, expected: list[str]) -> None:
    assert select_layers(NAMES, patterns, where="a.h5") == expected


def test_a_literal_name_comes_first() -> None:
    names = ["2-5", "3", "x", "*", "-1"]
    for name in names:
        assert select_layers(names, [name], where="a.h5") == [name]
    assert select_layers(names, ["2-4"], where="a.h5") == ["x", "*", "-1"]


def test_embeddings_are_left_out_unless_asked_for() -> None:
    assert select_layers(NAMES, None, where="a.h5", embeddings=False) == NAMES[1:]
    assert select_layers(NAMES, ["*"], where="a.h5", embeddings=False) == NAMES
    assert select_layers(["hidden_0"], None, where="a.h5", embeddings=False) == ["hidden_0"]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("hiden_3", "did you mean hidden_3, hidden_6, hidden_5?"),
        ("7", "it has 7: hidden_0, hidden_1, hidden_2, hidden_3, hidden_4, hidden_5, hidden_6"),
        ("-8", "it has 7: hidden_0, hidden_1, hidden_2, hidden_3, hidden_4, hidden_5, hidden_6"),
        ("2-7", "it has 7: hidden_0, hidden_1, hidden_2, hidden_3, hidden_4, hidden_5, hidden_6"),
        ("5-2", "a range begins with the smaller number: --layers 2-5"),
        ("0:2", "a range names both ends with a hyphen: --layers 0-1"),
        ("3:", "a range names both ends with a hyphen: --layers 3-6"),
        ("..2", "a range names both ends with a hyphen: --layers 0-2"),
        ("1, 4", "repeat the option: --layers 1 --layers 4"),
        ("9" * 5000, "it has 7: hidden_0, hidden_1, hidden_2, hidden_3, hidden_4, hidden_5, hidden_6"),
        ("\n", "it has 7: hidden_0, hidden_1, hidden_2, hidden_3, hidden_4, hidden_5, hidden_6"),
    ],
)
def test_what_matches_nothing_is_refused_with_what_there_is(pattern: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        select_layers(NAMES, [pattern], where="a.h5")
    shown = pattern.replace("\n", "\\n")
    assert str(caught.value) == f"--layers {shown} matches no layer of a.h5; {hint}"


def test_a_long_list_is_cut() -> None:
    with pytest.raises(UsageError) as caught:
        select_layers([f"layer{k}" for k in range(40)], ["?"], where="a.h5")
    assert str(caught.value).endswith("it has 40: " + ", ".join(f"layer{k}" for k in range(8)) + ", …")
