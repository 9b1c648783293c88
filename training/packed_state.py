"""The state of a training in one small file, to carry from one machine to another.

Network and moving average in float16, with the step, the settings and the log in the header. The
optimizer's moments are left out: a run that begins from it warms up again and does not end bit for
bit like one that was never stopped, as a run that resumes from `state.pt` does.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from data.files import replacing
from models.tensors import DAMAGED, read_tensors

PARTS = ("task", "average")
HEADER = "training"  # the key of the header by which the file is known


def write_state(state: dict, path: Path) -> None:
    """state: what `training.loop.fit` saves: parts, `step`, `settings` and `log`."""
    tensors = {
        f"{part}/{name}": value.half() if value.is_floating_point() else value
        for part in PARTS
        for name, value in state[part].items()
    }
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    header = {name: state[name] for name in ("step", "settings", "log")}
    if start := header["settings"].get("start"):  # its folder is of this machine alone
        header["settings"] = header["settings"] | {"start": Path(start).name}
    with replacing(path) as file:
        file.write(save(tensors, metadata={HEADER: json.dumps(header)}))


def read_header(path: Path) -> dict | None:
    """Step, settings and log, without the tensors; None where the file holds something else."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})[HEADER])
    except DAMAGED:
        return None


def read_state(path: Path) -> dict | None:
    """What was written, in float32; None where the file holds something else, such as weights.

    Raises: WeightsError: the tensors are damaged.
    """
    header = read_header(path)
    if header is None:
        return None
    state = {**header, **{part: {} for part in PARTS}}
    for name, value in read_tensors(path).items():
        part, _, name = name.partition("/")
        state[part][name] = value.float() if value.is_floating_point() else value
    return state


def part_of(state: dict, prefix: str) -> dict[str, Tensor]:
    """The tensors of a module within `task`."""
    items = state["task"].items()
    return {k.removeprefix(prefix): v for k, v in items if k.startswith(prefix)}
