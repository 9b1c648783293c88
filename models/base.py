"""What every expert promises.

An expert is a frozen network that looks at every region of every face of a batch and answers with named outputs. Each
output is of one kind, and the kind alone decides how two regions are compared (features/consistency.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

KINDS = ("distribution", "embedding", "scalar", "vector")


@dataclass(frozen=True)
class Output:
    """One named output of an expert.

    kind: `distribution` (sums to 1 over `names`), `embedding` (L2-normalised, compared by cosine), `scalar` (one number in
        a unit of its own) or `vector` (named scalars).
    size: length of the last axis.
    names: class or component names, `size` of them; empty for embeddings.
    """

    kind: str
    size: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown output kind {self.kind!r}; the kinds are {', '.join(KINDS)}")
        if self.names and len(self.names) != self.size:
            raise ValueError(f"{len(self.names)} names for an output of size {self.size}")

    def to_json(self) -> dict:
        return {**asdict(self), "names": list(self.names)}

    @classmethod
    def from_json(cls, data: dict) -> Output:
        return cls(data["kind"], int(data["size"]), tuple(data["names"]))


class Expert(nn.Module):
    """A frozen network over face regions. Subclasses set the attributes and write `forward`.

    name: the first part of every column it yields (`lite` in `lite.age/js/full~lower`).
    crop: which crop of data/faces.py it eats (`aligned112`: the ArcFace template).
    outputs: what it answers, by name.
    weights: the file it was loaded from.
    """

    name: str
    crop: str
    outputs: dict[str, Output]
    weights: Path

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        """faces: (B, 4, S, S) uint8 RGBA on the expert's device; alpha 0 marks pixels outside the photograph.

        Returns: for each name in `outputs` a float32 tensor (B, R, size), regions in the order of `REGIONS`.
        """
        raise TypeError(f"{type(self).__name__} must define forward")

    def frozen(self, device: str | torch.device) -> Expert:
        """This expert on `device`, in evaluation mode, with gradients off."""
        return self.requires_grad_(False).eval().to(device)
