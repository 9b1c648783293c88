"""A report as a document: sections of text, tables and pictures, as Markdown, as LaTeX tables and as one HTML file.

All text is data: names of systems and data sets may hold any character and are escaped here, once per format.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from evaluation.protocols import slug

LONGEST = 180  # bytes of a file name, without its ending and number: file systems allow 255
NEW_ROW = r" \\"
# What LaTeX takes for markup, or sets as another character (`<` in OT1). Braces keep `[` and `*` from becoming options of \\.
LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "`": r"\`{}",
    "–": "--",
    "→": r"$\to$",
    "×": r"$\times$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "ø": r"\o{}",
}
MINUS = re.compile(r"(?<![\w-])-(?=\d)")
# Combining character -> accent command that every encoding has.
ACCENTS = dict(
    zip(
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327",
        "`'^~=u.\"rHvc",
        strict=True,
    )
)


@dataclass(frozen=True)
class Cell:
    """text: a name, or a value as it is shown. interval: what belongs to the value and is set smaller. best: of its column."""

    text: str = "n/a"
    interval: str = ""
    best: bool = False


def number(value: float | None, sign: bool = False) -> str:
    """Three digits; n/a where undefined."""
    return "n/a" if value is None or value != value else f"{value:{'+' if sign else ''}.3f}"


def interval(found: Mapping | None) -> str:
    """low–high; nothing where undefined."""
    low, high = (number((found or {}).get(name)) for name in ("low", "high"))
    return "" if "n/a" in (low, high) else f"{low}{' to ' if '-' in low + high else '–'}{high}"


def figure(found: Mapping | None, sign: bool = False) -> Cell:
    """found: {"value", "low", "high"}, of which any may be None."""
    return Cell(number((found or {}).get("value"), sign), interval(found))


def words(found: Mapping | None) -> str:
    """The same within a sentence."""
    cell = figure(found)
    return f"{cell.text} ({cell.interval})" if cell.interval else cell.text


def texts(*values: object) -> list[Cell]:
    return [Cell(str(value)) for value in values]


@dataclass(frozen=True)
class Table:
    """name: of its files, without an ending; "" where there are none. texts: how many columns, from the left, hold words."""

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    texts: int = 1

    def __post_init__(self) -> None:
        assert {len(row) for row in self.rows} <= {len(self.head)}, self.name

    @property
    def has_best(self) -> bool:
        return any(cell.best for row in self.rows for cell in row)


@dataclass(frozen=True)
class Picture:
    """A PNG. path: relative to the report's folder. caption: what is seen. wide: unreadable when shrunk to a phone."""

    path: str
    title: str
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """blocks: a paragraph each (str), a list of remarks (tuple of str), a table, or pictures side by side (list)."""

    title: str
    blocks: Sequence[str | tuple[str, ...] | Table | list[Picture]]
    level: int = 2


class Names:
    """File names without an ending, no two alike."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def __call__(self, *parts: str) -> str:
        stem = (
            "-".join(slug(part) for part in parts if part)
            .encode()[:LONGEST]
            .decode(errors="ignore")
        )
        name = next(name for name in _numbered(stem) if name not in self.taken)
        self.taken.add(name)
        return name


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1


def one_line(text: str) -> str:
    return " ".join(text.split())


def write(path: Path, text: str) -> None:
    """UTF-8; what has no UTF-8, such as a byte of a file name in another encoding, is written as its code: \\udce9."""
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


# Markdown (GitHub's, with pipe tables).


def md(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]<>|&~$#" else c for c in one_line(text))


def _md_cell(cell: Cell) -> str:
    value = md(cell.text)
    return (f"*{value}*" if cell.best else value) + (
        f" ({md(cell.interval)})" if cell.interval else ""
    )


def markdown_table(table: Table) -> str:
    """With its caption above and its notes below."""
    rules = [":--" if column < table.texts else "--:" for column in range(len(table.head))]
    lines = [
        [md(name) for name in table.head],
        rules,
        *([_md_cell(cell) for cell in row] for row in table.rows),
    ]
    notes = [md(f"{note}.") for note in table.notes]
    notes += ["*In italics*: the best of its column."] if table.has_best else []
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{md(table.caption)}**\n\n{text}\n" + "".join(f"\n{note}\n" for note in notes)


def _md_block(block: str | tuple | Table | list) -> str:
    if isinstance(block, Table):
        return markdown_table(block)
    if isinstance(block, str):
        return md(block) + "\n"
    if isinstance(block, tuple):
        return "".join(f"- {md(line)}\n" for line in block)
    return "\n".join(
        f"![{md(picture.title)}](<{picture.path}>)\n\n{md(picture.caption)}\n" for picture in block
    )


def markdown(title: str, lead: Sequence[str], sections: Iterable[Section]) -> str:
    parts = [f"# {md(title)}\n", *(f"{md(line)}\n" for line in lead)]
    for section in sections:
        parts += [f"{'#' * section.level} {md(section.title)}\n", *map(_md_block, section.blocks)]
    return "\n".join(parts)


# LaTeX.


def tex(text: str) -> str:
    """Plain ASCII that every LaTeX engine sets: letters with accents by command, other characters as U+code."""
    return MINUS.sub("$-$", "".join(_tex(c) for c in one_line(text)))


def _tex(c: str) -> str:
    if c in LATEX:
        return LATEX[c]
    if c.isascii() and c.isprintable():
        return c
    letter, *marks = unicodedata.normalize("NFD", c)
    if letter.isascii() and letter.isalpha() and len(marks) == 1 and marks[0] in ACCENTS:
        return f"\\{ACCENTS[marks[0]]}{{{letter}}}"
    return f"U+{ord(c):04X}"


def latex_table(table: Table) -> str:
    """A table environment for \\usepackage{booktabs,graphicx}; intervals on a line of their own below the values."""
    rows = []
    for row in table.rows:
        values = (
            rf"\underline{{{tex(cell.text)}}}" if cell.best else tex(cell.text) for cell in row
        )
        rows.append(" & ".join(values) + NEW_ROW)
        if any(cell.interval for cell in row):
            small = (
                rf"{{\scriptsize {tex(cell.interval)}}}" if cell.interval else "" for cell in row
            )
            rows += [" & ".join(small) + NEW_ROW, r"\addlinespace"]
    notes = [tex(note) + "." for note in table.notes]
    notes += ["Underlined: the best of its column."] if table.has_best else []
    columns = "".join("l" if column < table.texts else "r" for column in range(len(table.head)))
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(table.caption)}.}}",
        rf"\label{{tab:{slug(table.name).encode('ascii', 'ignore').decode()}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",  # never wider than the text
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(tex(name) for name in table.head) + NEW_ROW,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}",
        *([r"\par\smallskip", " ".join(notes)] if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


# HTML.


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def html(title: str, lead: Sequence[str], sections: Sequence[Section], folder: Path) -> str:
    """One file that needs nothing else. folder: where the paths of the pictures begin."""

    def data_uri(path: str) -> str:
        return "data:image/png;base64," + base64.b64encode((folder / path).read_bytes()).decode()

    return _template().render(title=title, lead=lead, sections=sections, data_uri=data_uri)
