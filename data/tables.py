"""Tables of users (CSV) as spreadsheets, Windows, pandas and R leave them, and the files they name.

A table is read as it was meant, or refused with the line that is in doubt.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from data.names import for_screen, from_csv
from data.samples import LABELS

SEPARATORS = ",;\t|"
ENCODINGS = {  # by the first bytes
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
KOREAN = "cp949"  # what spreadsheets in Korea write
SPACES = " \t\r\n\v\f\x1a\xa0\u3000\ufeff\u200b\u200e\u200f\u202a\u202c"  # seen and unseen, around values
WORDS = {**LABELS, "false": 0, "true": 1, "0%": 0, "100%": 1}
NOTHING = """
    na n/a n.a. n.a #n/a #na <na> nan -nan nat null #null! nil none (none) <none> undefined missing
    unknown (unknown) <unknown> unk - -- --- – — ? ?? 없음 미상
"""
NOTHING = frozenset(NOTHING.split())  # in a cell that may be empty, in any case
WHOLE = re.compile(r"(-?\d+)[.,]0{0,2}")  # a whole number, as pandas and spreadsheets write it
AGAIN_NAMED = re.compile(
    r"(.+?)(\.+|_duplicated_)\d+"
)  # how pandas, R and polars mark a second one
QUOTES = "\"'“”‘’"
SEP_LINE = re.compile(r'\ufeff?"?sep=.\s*?"?\s*', re.IGNORECASE)  # for spreadsheets, first
LINE_END = re.compile(r"\r\n?|\n")
DRIVE = re.compile(r"[a-zA-Z]:/")
HEAD = 4096  # bytes that have the names of the columns
AGAIN = 'save it again as "CSV UTF-8"'
log = logging.getLogger("masc")


def read_table(
    path: Path, needed: Sequence[str] = ("path", "label"), more: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """(Line number, column -> value) of every row that is not empty.

    Names of columns are in lower case, spaces around names and values removed. UTF-8, UTF-16 or
    CP949; commas, semicolons, tabs or bars: the one that gives the columns `needed`. more: other
    columns that are used where they are there.

    Raises:
        ValueError: names the file, and the line or the encoding that cannot be read.
    """
    text, empty = _text(path), True
    try:
        for row in _rows(text, needed, more):
            empty = False
            yield row
        if empty:
            raise ValueError(
                "lists no images or videos: it has no rows below the names of its columns"
            )
    except csv.Error as error:
        raise ValueError(f"{path}: names of columns: {_reason(error)}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def columns_of(path: Path) -> list[str]:
    """Names of the columns of any file, by its first bytes; made up where it is no table."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    text = head.decode(_encoding(head) or "utf-8", errors="replace")
    return max((_names(_header(text), separator) for separator in SEPARATORS), key=len)


def label_of(text: str) -> int | None:
    """0 (real) or 1 (fake), or None: real, FAKE, 0, 1.0, "1,0", 100%, TRUE (it is fake)."""
    word = text.strip(QUOTES + " ").lower().replace(" %", "%")
    return WORDS.get(re.sub(r"(?<=\d)[.,]0*(?=%?$)", "", word))


def name_of(text: str) -> str:
    """A group, video or method as a table means it: "" for nothing, 1 for 1.0; one form of Unicode."""
    if text.casefold() in NOTHING:
        return ""
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else unicodedata.normalize("NFC", text)


# Text.


def _encoding(raw: bytes) -> str | None:
    """Where the first bytes tell it."""
    for mark, encoding in ENCODINGS.items():
        if raw.startswith(mark):
            return encoding
    halves = (any(raw[0:HEAD:2]), any(raw[1:HEAD:2]))  # Latin text has every second byte 0
    return {(True, False): "utf-16-le", (False, True): "utf-16-be"}.get(
        halves if len(raw) > 3 else None
    )


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if raw.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        raise ValueError(f"{path}: is a spreadsheet or an archive, not a CSV; {AGAIN}")
    encoding = _encoding(raw)
    try:
        return raw.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            name = encoding.upper().removesuffix("-SIG")
            raise ValueError(f"{path}: begins as {name}, and goes on otherwise; {AGAIN}") from error
        line = len(re.findall(rb"\r\n?|\n", raw[: error.start])) + 1
    try:
        text = raw.decode(KOREAN)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: line {line}: its encoding is neither UTF-8 nor CP949 (Korean); {AGAIN}"
        ) from error
    log.warning("%s: not UTF-8, so read as CP949 (Korean); if names are wrong, %s", path, AGAIN)
    return text


def _lines(text: str) -> Iterator[str]:
    """With their ends, which may be \\r alone; those for spreadsheets only are made empty."""
    for number, line in enumerate(io.StringIO(text, newline="")):
        yield "\n" if number == 0 and SEP_LINE.fullmatch(line) else line


def _header(text: str) -> str:
    return next((line for line in _lines(text) if line.strip(SEPARATORS + SPACES)), "")


# Rows.


def _names(line: str, separator: str) -> list[str]:
    cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return [_name(cell) for cell in cells]


def _name(cell: str) -> str:
    return cell.strip(SPACES + QUOTES).lower()


def _separator(line: str, needed: Sequence[str]) -> str:
    for separator in SEPARATORS:
        if {*needed} <= {*_names(line, separator)}:
            return separator
    best = max((_names(line, separator) for separator in SEPARATORS), key=len)
    missing = " and no ".join(sorted({*needed} - {*best}))
    shown = for_screen(line.strip()[:80])
    raise ValueError(
        f"has no column {missing}: its first line is {shown!r}; expected names of columns such as "
        f"{','.join(needed)}, separated by commas, semicolons or tabs"
    )


def _rows(
    text: str, needed: Sequence[str], more: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    if "\0" in text:
        line = len(LINE_END.findall(text, 0, text.index("\0"))) + 1
        raise ValueError(f"line {line}: has a NUL byte, so it is damaged or no table; {AGAIN}")
    separator = _separator(_header(text), needed)
    names: list[str] = []
    for line, cells in _records(text, separator):
        if not names:
            names = [_name(cell) for cell in cells]
            if twice := sorted({n for n in names if n and names.count(n) > 1}):
                raise ValueError(f"line {line}: has the column {twice[0]} twice")
            for name in names:
                first = (AGAIN_NAMED.fullmatch(name) or [name, ""])[1]
                if first in names and first in (*needed, *more):
                    raise ValueError(
                        f"line {line}: has the columns {first} and {name}; leave one of them out"
                    )
            continue
        if any(cells[len(names) :]):
            raise ValueError(
                f"line {line}: has {len(cells)} cells for {len(names)} columns; a value with "
                f"{separator!r} in it must be in double quotes"
            )
        row = dict(zip(names, cells, strict=False))
        for name in needed:
            if name not in row:
                raise ValueError(
                    f"line {line}: has {len(cells)} cells for {len(names)} columns, and no {name}: "
                    f"{for_screen(separator.join(cells)[:80])!r}; columns are separated by "
                    f"{separator!r}"
                )
        yield line, row


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(Number of its first line, cells) of every row that is not empty."""
    reader = csv.reader(_lines(text), delimiter=separator, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip(SPACES) for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"line {line}: {_reason(error)}") from error
        if any(cells):
            yield line, cells


def _reason(error: csv.Error) -> str:
    large = f"a value of more than {csv.field_size_limit():,} characters"
    what = large if "field limit" in str(error) else str(error)
    return f"{what}; is a double quote not closed, or not doubled within a value?"


# Files that a table names.


class Files:
    """What lies below a folder. Every folder is listed once, however many files are asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tops = [
            place.as_posix().rstrip("/") + "/" for place in (root.absolute(), root.resolve())
        ]
        self._names, self._by_key = cache(self._names), cache(self._by_key)
        self._folders = cache(self._same)

    def find(self, path: str) -> str | None:
        """The path of the file that a table calls so, or None.

        As it is, else with slashes for backslashes, without quotes or the apostrophe of a formula,
        or the only one of these names in another case or another form of Unicode.

        Raises:
            ValueError: the path leads out of the folder.
        """
        path = self.within(path)
        slashes = path.replace("\\", "/")
        written = dict.fromkeys(
            (path, slashes, from_csv(path), from_csv(slashes), slashes.strip(QUOTES))
        )
        forms = dict.fromkeys(map(_plain, written))
        outside = any(form.startswith("/") for form in written)
        if outside or any(not form or ".." in form.split("/") for form in forms):
            raise ValueError(f"path {path!r} is not one below the folder of the table")
        for form in forms:
            parent, _, name = form.rpartition("/")
            if name in self._names(parent):
                return form
        for form in forms:
            if len(same := self._same(form)) == 1:
                return same[0]
        if DRIVE.match(slashes):
            raise ValueError(f"path {path!r} is of another machine, not below the table's folder")
        return next((form for form in forms if os.path.lexists(self.root / form)), None)

    def within(self, path: str) -> str:
        """An absolute path below the folder as one that counts from it; others as they are."""
        for plain in (path, from_csv(path), path.strip(QUOTES)):
            for top in self._tops:
                if plain.startswith(top):
                    return plain.removeprefix(top).lstrip("/")
        return path

    def _names(self, folder: str) -> frozenset[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                return frozenset(entry.name for entry in entries)
        except OSError:  # none, no folder, or one that may be entered and not listed
            return frozenset()

    def _by_key(self, folder: str) -> dict[str, list[str]]:
        names = defaultdict(list)
        for name in self._names(folder):
            names[_key(name)].append(name)
        return names

    def _same(self, path: str) -> list[str]:
        """All that have this path in any case."""
        if not path:
            return [""]
        parent, _, name = path.rpartition("/")
        return [
            f"{folder}/{found}" if folder else found
            for folder in self._folders(parent)
            for found in self._by_key(folder).get(_key(name), ())
        ]


def _plain(path: str) -> str:
    """Without the parts that mean nothing: ./ and //."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _key(name: str) -> str:
    """The same for names that differ in case, in Unicode's form, or by being bytes of CP949."""
    raw = os.fsencode(name)
    for encoding in ("utf-8", KOREAN):
        try:
            return unicodedata.normalize("NFC", raw.decode(encoding)).casefold()
        except UnicodeDecodeError:
            continue
    return name
