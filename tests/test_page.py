"""Names may hold anything, in Markdown, in LaTeX, in file names and in pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation import plots
from evaluation.page import Cell, Names, Table, latex_table, markdown_table, md, tex

pytestmark = pytest.mark.filterwarnings("error")


def test_escapes() -> None:
    assert tex("a_b & 50% #1 {x} ~^<>|") == (
        r"a\_b \& 50\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"
    )
    assert tex("é Č 顔 \udce9 -0.5 a-1 [x]*") == r"\'{e} \v{C} U+9854 U+DCE9 $-$0.5 a-1 {[}x{]}{*}"
    assert md("a|b_c*<d>\n&`$") == r"a\|b\_c\*\<d\> \&\`\$"
    table = Table("x", "c|d", ["name", "v"], [[Cell("a|b"), Cell("0.5", "0.4–0.6", True)]], ["n|m"])
    assert "| a\\|b | *0.5* (0.4–0.6) |" in markdown_table(table) and "n\\|m." in markdown_table(
        table
    )
    assert r"\underline{0.5} \\" in latex_table(
        table
    ) and r"{\scriptsize 0.4--0.6} \\" in latex_table(table)


def test_file_names() -> None:
    names = Names()
    assert [names("A b", "c"), names("a", "B C"), names("..", "/"), names("顔" * 100)] == [
        "a-b-c",
        "a-b-c-2",
        "unnamed-unnamed",
        "顔" * 60,
    ]
    assert len(names("é" * 300).encode()) <= 180


def test_names_in_pictures() -> None:
    assert plots.drawable("a顔b", 40) == r"a\u9854b" and plots.drawable("é$^", 40) == "é$^"
    assert plots.drawable("word " * 100, 20).count("\n") == 3
    looks = [str({**plots.style(place), "color": ""}) for place in range(35)]
    assert len(set(looks)) == len(looks), "told apart without colours"
    y, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.5, 0.9])
    found = {"value": 0.75, "low": 0.5, "high": 1.0}
    figure, caption = plots.roc(r"$\frac$ {%", [(0, r"$\x_$", y, p, found), (1, "b", y, p, None)])
    figure.savefig(Path("/dev/null"), format="png")  # raises where a name is taken for a formula
    assert caption.endswith(r"$\x_$ has an AUC of 0.750 (0.500–1.000), b, one of n/a")
