"""Tables as Markdown and LaTeX: to the letter, and with no name that acts as markup."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from contrasim_cli.report import markup
from contrasim_cli.report import text as report
from contrasim_cli.report.results import CompareRow, Results, SanityRow, ScoreRow

GRID = Results(
    "baseline",
    ScoreRow,
    [
        ScoreRow("cka", "a_1", "x|y", "b%", "y", 0.25),
        ScoreRow("cka", "a_1", "x|y", "b%", "z", None),
        ScoreRow("procrustes", "a_1", "x|y", "b%", "y", -0.5),
    ],
)


def text(results: Results, form: str) -> str:
    return report.render(results, form, color=False)


def test_markdown_of_grids() -> None:
    assert text(GRID, "md") == (
        "cka: a\\_1 (rows) against b% (columns)\n"
        "\n"
        "|  | y | z |\n"
        "| --- | ---: | ---: |\n"
        "| x\\|y | 0.2500 |  |\n"
        "\n"
        "procrustes: a\\_1 (rows) against b% (columns); lower is more similar\n"
        "\n"
        "|  | y |\n"
        "| --- | ---: |\n"
        "| x\\|y | -0.5000 |\n"
    )


def test_latex_of_grids() -> None:
    assert text(GRID, "tex") == (
        "% needs \\usepackage{booktabs}, and \\usepackage{amssymb} where there are check marks\n"
        "\\begin{table}\n"
        "\\centering\n"
        "\\caption{cka: a\\_1 (rows) against b\\% (columns)}\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        " & y & z \\\\\n"
        "\\midrule\n"
        "x\\textbar{}y & 0.2500 &  \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\end{table}\n"
        "\\begin{table}\n"
        "\\centering\n"
        "\\caption{procrustes: a\\_1 (rows) against b\\% (columns); lower is more similar}\n"
        "\\begin{tabular}{lr}\n"
        "\\toprule\n"
        " & y \\\\\n"
        "\\midrule\n"
        "x\\textbar{}y & $-$0.5000 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\end{table}\n"
    )


def test_rules_stand_where_sections_end() -> None:
    row = CompareRow("layers", "", "all", "", "", "l1", "cka", "dot", 0.5, 0.25, 0.25, -0.1, 0.6, 0.2, 0.4, 40, 80, "x")
    rows = [row, CompareRow("layers", "", "all", "", "", "all", "cka", "dot", *[None] * 7, 0, 0, "undefined")]
    lines = text(Results("bench compare", CompareRow, rows), "tex").splitlines()
    assert lines[lines.index("\\toprule") :] == [
        "\\toprule",
        "layer & cka & dot & difference & 95 \\% interval & p & verdict \\\\",
        "\\midrule",
        "l1 & 50.0 & 25.0 & +25.0 & [$-$10.0, +60.0] & 0.4 & x \\\\",
        "\\midrule",
        "all &  &  &  &  &  & undefined \\\\",
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]


def test_lines_of_a_cell_stay_in_it() -> None:
    table = Table("head\nof two", "b")
    table.add_row("70 ± 2\n60–80", "→ ✓")
    assert "| head<br>of two | b |" in markup.markdown([table])
    assert "| 70 ± 2<br>60–80 | → ✓ |" in markup.markdown([table])
    latex = markup.latex([table])
    assert r"\shortstack[r]{70 $\pm$ 2 \\ 60\textendash{}80} & $\rightarrow$ $\checkmark$ \\" in latex


def test_text_is_the_caption_of_the_table_beneath_it_alone() -> None:
    tables = [Table("a"), Table("b")]
    latex = markup.latex(["one", tables[0], "note 5%", "two", tables[1], "end"])
    found = re.findall(r"\\caption\{(.*)\}|^(a|b) |^(note.*|end)$", latex, re.M)
    assert ["".join(words) for words in found] == ["one", "a", "note 5\\%", "two", "b", "end"]


def test_checks_are_tables_too() -> None:
    rows = [SanityRow("cka", "l", "symmetric", None, "same", 1.0, 1.0, "ok")]
    assert "$\\checkmark$" in text(Results("bench", SanityRow, rows), "tex")


@pytest.mark.parametrize("form", ["md", "tex"])
def test_no_rows_are_no_tables(form: str) -> None:
    assert re.search(r"tabular|---|cka:", text(Results("baseline", ScoreRow, []), form)) is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet="ab\\|*_`<>[]#~$&!%{}^-–\n ", min_size=1, max_size=12))
def test_no_name_is_markup(name: str) -> None:
    table = Table(name, "b")
    table.add_row(name, "0.5")
    lines = markup.markdown([table]).splitlines()
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines if line] == [3, 3, 3]  # cells
    assert not re.search(r"(?<!\\)(?:\\\\)*[*_`#~$]", "".join(lines))
    latex = markup.latex([table])
    (row,) = [line for line in latex.splitlines() if line.endswith(r"& 0.5 \\")]
    bare = re.sub(r"\\shortstack\[r\]|\\(?:text\w+|dots)\{\}|\\[&%$#_{}]|\{\}|\$[-\\a-z]*\$|\\\\", "", row)
    assert not re.search(r"[%$#_\\^~<>|]", bare)
    assert bare.count("&") == 1
    assert "--" not in row


@given(st.text(alphabet="-+=1.) ab", min_size=1, max_size=6))
def test_no_line_begins_a_list(name: str) -> None:
    assert not re.match(r"\s*([-+=]|\d[.)](\s|$))", markup.markdown([name]))
