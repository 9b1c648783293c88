"""A report as a document: Markdown, LaTeX tables and one HTML file.

Names of systems and datasets may hold any character; they are escaped here, once per format.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.files import replacing
from evaluation.protocols import slug

LONGEST = 180  # bytes of a file name, without its ending and number: file systems allow 255
LATEX = {c: f"\\{c}" for c in "&%$#_{}"}
LATEX |= {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # not an option of \\
    "]": "{]}",
    "*": "{*}",
    "`": r"\`{}",
    "–": "--",
    "→": r"$\to$",
    "Δ": r"$\Delta$",
}
MINUS = re.compile(r"(?<![\w-])-(?=\d)")
NOT_SET = re.compile(r"[^\x00-\u017f→Δ–]")  # characters that pdflatex does not know


def number(value: float | None, sign: bool = False) -> str:
    """Three digits; n/a where undefined."""
    return "n/a" if value is None or pd.isna(value) else f"{value:{'+' if sign else ''}.3f}"


def figure(value: float | None, low: float, high: float, sign: bool = False) -> str:
    """A cell: the value and, where defined, its interval on a second line."""
    text, low, high = number(value, sign), number(low), number(high)
    between = " to " if "-" in low + high else "–"
    return text if "n/a" in (low, high) else f"{text}\n{low}{between}{high}"


def inline(row: Mapping) -> str:
    """A figure within a sentence."""
    value, _, interval = figure(row["value"], row["low"], row["high"]).partition("\n")
    return f"{value} ({interval})" if interval else value


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        name: of its files, without an ending; "" where there are none.
        cells: text; an interval stands on a second line.
        best: cells (row, column) to mark.
        texts: how many columns, from the left, hold words.
    """

    name: str
    caption: str
    cells: pd.DataFrame
    best: frozenset[tuple[int, int]] = frozenset()
    notes: Sequence[str] = ()
    texts: int = 1

    @property
    def rows(self) -> list[list[tuple[str, str, bool]]]:
        """Value, interval and mark of every cell."""
        return [
            [(*str(cell).partition("\n")[::2], (i, j) in self.best) for j, cell in enumerate(row)]
            for i, row in enumerate(self.cells.itertuples(index=False))
        ]


@dataclass(frozen=True)
class Picture:
    """A PNG. path: relative to the report's folder. wide: unreadable when shrunk to a phone."""

    path: str
    title: str
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """blocks: paragraphs (str), bullets (tuple), tables, or pictures side by side (list)."""

    title: str
    blocks: list[str | tuple[str, ...] | Table | list[Picture]]
    level: int = 2
    key: str = ""


class Names:
    """File names without an ending, no two the same."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def __call__(self, *parts: str) -> str:
        stem = "-".join(slug(part) for part in parts if part)
        name = stem = stem.encode()[:LONGEST].decode(errors="ignore")
        number = 1
        while name in self.taken:
            number += 1
            name = f"{stem}-{number}"
        self.taken.add(name)
        return name


def write(path: Path, text: str) -> None:
    """UTF-8; what has none, such as a byte of a file name, as its code: \\udce9."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def md(text: str) -> str:
    """Escaped for GitHub's Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|&~$#" else c for c in " ".join(text.split()))


def markdown_table(table: Table) -> str:
    """With its caption above and its notes below."""
    rules = [":--" if i < table.texts else "--:" for i in range(len(table.cells.columns))]
    lines = [[md(name) for name in table.cells.columns], rules]
    for row in table.rows:
        cells = ((f"**{md(value)}**" if best else md(value), low) for value, low, best in row)
        lines.append([f"{value} ({md(low)})" if low else value for value, low in cells])
    notes = [md(f"{note}.") for note in table.notes]
    notes += ["**Bold**: the best of its column."] if table.best else []
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{md(table.caption)}**\n\n{text}\n" + "".join(f"\n{note}\n" for note in notes)


def _markdown_block(block: str | tuple | Table | list) -> str:
    if isinstance(block, Table):
        return markdown_table(block)
    if isinstance(block, str):
        return md(block) + "\n"
    if isinstance(block, tuple):
        return "".join(f"- {md(line)}\n" for line in block)
    return "\n".join(f"![{md(x.title)}](<{x.path}>)\n\n{md(x.caption)}\n" for x in block)


def markdown(title: str, lead: Sequence[str], sections: Iterable[Section]) -> str:
    parts = [f"# {md(title)}\n", *(f"{md(line)}\n" for line in lead)] if title else []
    for section in sections:
        parts.append(f"{'#' * section.level} {md(section.title)}\n")
        parts += map(_markdown_block, section.blocks)
    return "\n".join(parts)


def tex(text: str) -> str:
    """Escaped for LaTeX; characters that pdflatex does not know as U+code."""
    text = NOT_SET.sub(lambda found: f"U+{ord(found[0]):04X}", " ".join(text.split()))
    return MINUS.sub("$-$", text.translate(str.maketrans(LATEX)))


def _tex_cell(value: str, interval: str, best: bool) -> str:
    value = rf"\underline{{{tex(value)}}}" if best else tex(value)
    if not interval:
        return value
    return rf"\shortstack[r]{{{value}\\{{\scriptsize {tex(interval)}}}}}"


def latex_table(table: Table) -> str:
    """A table environment for \\usepackage{booktabs,graphicx}, never wider than the text."""
    columns = [tex(name) for name in table.cells.columns]
    notes = [tex(note) + "." for note in table.notes]
    notes += ["Underlined: the best of its column."] if table.best else []
    lines = [
        r"% needs \usepackage[T1]{fontenc} \usepackage{booktabs,graphicx}",
        r"\begin{table}\centering\footnotesize",
        rf"\caption{{{tex(table.caption)}.}}",
        rf"\label{{tab:{slug(table.name).encode('ascii', 'ignore').decode()}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * table.texts}{'r' * (len(columns) - table.texts)}}}",
        r"\toprule",
        " & ".join(columns) + r" \\",
        r"\midrule",
        *(" & ".join(_tex_cell(*cell) for cell in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        *([r"\par\smallskip", " ".join(notes)] if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def html(title: str, lead: Sequence[str], sections: Sequence[Section], folder: Path) -> str:
    """One file that needs nothing else. folder: where the paths of the pictures begin."""

    def data_uri(path: str) -> str:
        return "data:image/png;base64," + base64.b64encode((folder / path).read_bytes()).decode()

    loader = FileSystemLoader(Path(__file__).parent)
    options = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    template = Environment(loader=loader, autoescape=True, **options)
    template = template.get_template("page.html.jinja")
    return template.render(title=title, lead=lead, sections=sections, data_uri=data_uri)
