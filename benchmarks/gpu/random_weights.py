"""Weight files of published experts with random values, in their official formats.

python -m benchmarks.gpu.random_weights FOLDER [EXPERT ...]     # default: all; 886 MB
"""

from __future__ import annotations

import argparse
from pathlib import Path

from models.weights import UNUSUAL, WEIGHTS
from tests.official import write


def write_some(folder: Path, experts: list[str]) -> None:
    """The folder appears when all files are there."""
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True)
    for name, entry in WEIGHTS.items():
        if name not in UNUSUAL and (not experts or entry.expert in experts):
            write(name, part)
    part.rename(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("experts", nargs="*")
    options = parser.parse_args()
    write_some(options.folder, options.experts)
