"""From raw outputs of the experts to P(fake)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.pipeline import FeaturePipeline
from models.checkpoint import Checkpoint
from models.heads import Head


class Scorer:
    """A checkpoint, ready to score raw outputs.

    Raises: ValueError where its parts do not belong together.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.pipeline = FeaturePipeline.from_state(checkpoint.info, checkpoint.arrays)
        self.head = Head.from_state(checkpoint.info, checkpoint.arrays)

    @property
    def threshold(self) -> float:
        """P(fake) from which on the verdict is fake."""
        return self.checkpoint.info["threshold"]["p_fake"]

    def score(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features and calibrated P(fake) of faces.

        Args:
            arrays: "expert.output" -> (N, R, D) raw outputs.

        Returns:
            (N, F) float32 features, in the order of the checkpoint's columns, and (N,) float64
            P(fake), NaN for a face without a single feature.

        Raises:
            ValueError: the outputs are not those that the checkpoint was trained on.
        """
        values = self.pipeline.transform(arrays).values
        return values, np.where(np.isnan(values).all(1), np.nan, self.head.p_fake(values))
