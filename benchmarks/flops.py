"""How much arithmetic an expert needs for a face."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.base import Expert


def flops_per_face(expert: Expert) -> int:
    """Floating-point operations of all products and convolutions, a multiplication and an addition
    being two, for every region of one face. expert: frozen on a CPU, as published: in the form for
    a GPU, some products are not seen.
    """
    face = torch.zeros(1, 4, expert.crop.px, expert.crop.px, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        expert(face)
    return counter.get_total_flops()
