"""Model cards: prose written by hand, figures written by the script that measured them."""

from __future__ import annotations

from pathlib import Path

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def check_marks(card: Path) -> None:
    """Raises: ValueError where `fill` would."""
    text = card.read_text(encoding="utf-8") if card.is_file() else f"{BEGIN}{END}"
    if END not in text.partition(BEGIN)[2]:
        raise ValueError(
            f"{card}: expected the marks {BEGIN} and {END}, between which the figures go"
        )


def fill(card: Path, figures: str) -> Path:
    """Put `figures` (Markdown) between the two marks of `card`, keeping the prose around; a missing card is made.

    Raises: ValueError where the card has no marks.
    """
    text = card.read_text(encoding="utf-8") if card.is_file() else f"{BEGIN}\n{END}\n"
    check_marks(card)
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    card.write_text(f"{before}{BEGIN}\n{figures}\n{END}{after}", encoding="utf-8")
    return card
