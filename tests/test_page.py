"""Names may hold any character, in Markdown, in LaTeX, in file names and in pictures."""

from __future__ import annotations

from io import BytesIO

import pandas as pd
import pytest

from evaluation import plots
from evaluation.page import Names, Table, latex_table, markdown_table, md, tex

pytestmark = pytest.mark.filterwarnings("error")


def test_escapes() -> None:
    assert tex("a_b & 50% #1 {x} ~^<>|") == (
        r"a\_b \& 50\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"
    )
    assert tex("é Č 顔 \udce9 -0.5 a-1 [x]*") == r"é Č U+9854 U+DCE9 $-$0.5 a-1 {[}x{]}{*}"
    assert md("a|b_c*<d>\n&`$") == r"a\|b\_c\*\<d\> \&\`\$"
    cells = pd.DataFrame([["a|b", "0.5\n0.4–0.6"]], columns=["name {0}", "v"])
    table = Table("x", "c|d", cells, frozenset({(0, 1)}), ["n|m"])
    text = markdown_table(table)
    assert "| a\\|b | **0.5** (0.4–0.6) |" in text and "n\\|m." in text
    assert r"\shortstack[r]{\underline{0.5}\\{\scriptsize 0.4--0.6}} \\" in latex_table(table)


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
    part = pd.DataFrame({"label": [0, 1, 0, 1], "p_fake": [0.1, 0.4, 0.5, 0.9]})
    figure, _ = plots.roc(r"$\frac$ {%", [(0, r"$\x_$", part), (1, "b", part)])
    figure.savefig(BytesIO(), format="png")  # raises where a name is taken for a formula
