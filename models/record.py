"""What a detector has been shown to find and to miss, in words: for screens, cards and model cards.

Measured by training/left_out.py and carried in checkpoint.json: `kinds`, a row for each kind of fake
and each dataset, and `nothing_found`, how often that is said of fakes and of real faces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

NAMED = 6  # kinds in a sentence
NOT_MEASURED = "What it finds and what it misses was not measured when it was trained."
HEADINGS = ("kind", "not in training", "fakes", "reals", "AUC", "looks manipulated")
HEADINGS += ("nothing found", "cannot tell", "false alarms")


@dataclass(frozen=True)
class Record:
    """rows, clear: `kinds` and `nothing_found` of a checkpoint; face_px: its abstention limit."""

    rows: Sequence[Mapping]
    clear: Mapping
    face_px: float

    @classmethod
    def of(cls, info: Mapping) -> Record:
        """info: of a checkpoint, which may lack the measurement."""
        clear = info.get("nothing_found", {"p_fake": 0.0})
        return cls(info.get("kinds", ()), clear, info["limits"].get("face_px", 0.0))

    @property
    def meaning(self) -> str:
        """What `nothing found` is worth."""
        rows = [row for row in self.rows if row["fakes"]]
        rows.sort(key=lambda row: -row["nothing_found"] / row["fakes"])
        left_out = any(row["left_out"] for row in rows)
        which = (
            "fakes of kinds and sources left out of training" if left_out else "validation fakes"
        )
        return (
            f"Nothing found is said of {self.clear['reals']:.0%} of real faces and of "
            f"{self.clear['fakes']:.0%} of {which}, on average, in faces from {self.face_px:.0f} px on; "
            f"by kind {_named(rows, 'nothing_found', 'fakes')}"
        )

    @property
    def lines(self) -> list[str]:
        """What it finds and misses, for a card or a page."""
        if not self.rows:
            return [NOT_MEASURED]
        found = []
        for how, begin in BEGINS.items():
            rows = [row for row in self.rows if row["left_out"] == how and row["fakes"]]
            rows.sort(key=lambda row: -row["found"] / row["fakes"])
            found += [f"{begin} {_named(rows, 'found', 'fakes')}."] * bool(rows)
        if alarms := [row for row in self.rows if row["false_alarms"] is not None]:
            alarms.sort(key=lambda row: -row["false_alarms"] / row["reals"])
            told = _named(alarms, "false_alarms", "reals", _percent)
            found.append(
                f"False alarms, of the real faces of sources left out of training: {told}."
            )
        if self.clear["p_fake"]:
            return [*found, f"{self.meaning}."]
        return [*found, "It never says nothing found: at no score would that mean anything."]

    def markdown(self) -> str:
        """For a model card: the lines, and every row in shares."""
        if not self.rows:
            return NOT_MEASURED
        lines = [HEADINGS, ["---"] * len(HEADINGS)]
        for row in self.rows:
            auc, fakes = row["auc"], row["fakes"]
            interval = "" if auc["low"] is None else f" ({auc['low']:.2f}-{auc['high']:.2f})"
            unsure = fakes - row["found"] - row["nothing_found"]
            counts = (row["found"], row["nothing_found"], unsure)
            shares = [f"{count / fakes:.0%}" if fakes else "" for count in counts]
            alarms = row["false_alarms"]
            lines.append(
                [
                    row["kind"].replace("|", "/"),
                    {"method": "the kind", "dataset": "the dataset", "": "nothing"}[
                        row["left_out"]
                    ],
                    f"{fakes}",
                    f"{row['reals']}",
                    "" if auc["value"] is None else f"{auc['value']:.2f}{interval}",
                    *shares,
                    "" if alarms is None else f"{_percent(alarms, row['reals'])} ({alarms})",
                ]
            )
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join(["### What it finds and what it misses", *self.lines, table])


BEGINS = {
    "method": "It found, of kinds of fakes left out of training:",
    "dataset": "It found, of the fakes of sources left out of training:",
    "": "It found, of validation fakes, of kinds and sources that it was trained on:",
}


def _tenths(count: int, of: int) -> str:
    return f"{10 * count / of:.0f} of 10" if of > 10 else f"{count} of {of}"


def _percent(count: int, of: int) -> str:
    return f"{count / of:.0%}"


def _named(
    rows: Sequence[Mapping], count: str, of: str, share: Callable[[int, int], str] = _tenths
) -> str:
    """The first and the last of the rows, as "swaps 9 of 10, edits 1 of 10"."""
    texts = [f"{row['kind']} {share(row[count], row[of])}" for row in rows]
    if len(texts) > NAMED:
        half = NAMED // 2
        texts = [*texts[:half], f"... ({len(texts) - NAMED} more)", *texts[-half:]]
    return ", ".join(texts)
