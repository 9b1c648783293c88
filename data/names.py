"""File names and other words of strangers, made safe for where they are shown.

A name may hold a newline that looks like another line of the answer, an escape sequence that a
terminal obeys, bytes that are not UTF-8, or a formula that a spreadsheet runs. `html.escape` of
`for_screen` does for a page.
"""

from __future__ import annotations

import re
import unicodedata

FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a text begins that a spreadsheet would compute
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tabs and line ends
UNSEEN = ("Cc", "Cf", "Co", "Zl", "Zp")  # Unicode: controls, directions, line breaks


def for_screen(text: str) -> str:
    """One line that can be printed anywhere: unprintable characters as \\x1b, bytes as \\xb0."""
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) not in (*UNSEEN, "Cs"):
        return character
    return character.encode("unicode_escape").decode()


def for_csv(text: str) -> str:
    """Behind an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


def for_table(text: str) -> str:
    """As `for_csv`, in a table that people look at: controls as \\x1b, so not to be undone."""
    return for_csv(CONTROLS.sub(lambda found: _shown(found[0]), text))


def from_csv(text: str) -> str:
    """What `for_csv` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
