"""The figures of a report as Markdown for a model card or a page of the documentation, without plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from evaluation.page import Names, markdown
from evaluation.tables import sections

LEFT_OUT = ("reading", "datasets", "how")


def for_card(report: Mapping, table: pd.DataFrame) -> str:
    """All tables and remarks."""
    made = [
        replace(section, level=section.level + 1, blocks=[x for x in section.blocks if x])
        for section in sections(report, table, Names())
        if section.key not in LEFT_OUT
    ]
    return markdown("", [], [x for x in made if x.blocks or x.key == "protocol"]).rstrip()
