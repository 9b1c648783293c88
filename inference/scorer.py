"""From raw outputs of the experts to P(fake)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.pipeline import FeaturePipeline
from models.checkpoint import Checkpoint
from models.heads import Head


class Scorer:
    """A checkpoint, ready to score raw outputs. Raises: ValueError: its parts do not fit."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.pipeline = FeaturePipeline.from_state(checkpoint.info, checkpoint.arrays)
        self.head = Head.from_state(checkpoint.info, checkpoint.arrays)

    @property
    def threshold(self) -> float:
        """P(fake) from which on the verdict is fake."""
        return self.checkpoint.info["threshold"]["p_fake"]

    def score(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, F) float32, in the order of the checkpoint's columns, and P(fake) (N,) float64.

        arrays: "expert.output" -> (N, R, D) raw outputs. P(fake) is NaN for a face without a single
        feature. Raises: ValueError: not the outputs that the checkpoint was trained on.
        """
        values = self.pipeline.transform(arrays).values
        return values, np.where(np.isnan(values).all(1), np.nan, self.head.p_fake(values))
