"""Model cards: prose written by hand, figures written by the script that measured them."""

from __future__ import annotations

from pathlib import Path

from data.files import replacing

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def check_marks(card: Path) -> str:
    """The text of a card, or of a new one. Raises: ValueError where it lacks the marks."""
    text = card.read_text(encoding="utf-8") if card.is_file() else f"{BEGIN}\n{END}\n"
    if END not in text.partition(BEGIN)[2]:
        raise ValueError(f"{card}: expected the marks {BEGIN} and {END} around the figures")
    return text


def fill(card: Path, figures: str) -> Path:
    """Put `figures` (Markdown) between the two marks of `card`. Raises: as `check_marks`."""
    before, _, rest = check_marks(card).partition(BEGIN)
    with replacing(card) as file:
        file.write(f"{before}{BEGIN}\n{figures}\n{END}{rest.partition(END)[2]}".encode())
    return card
