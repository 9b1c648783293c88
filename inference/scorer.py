"""From raw outputs of the experts to P(fake)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.pipeline import FeaturePipeline
from features.regions import REGIONS
from models.checkpoint import Checkpoint
from models.heads import Head


class Scorer:
    """A checkpoint, ready to score raw outputs. Raises: ValueError: its parts do not fit."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, info = checkpoint, checkpoint.info
        try:
            self.pipeline = FeaturePipeline.from_state(info, checkpoint.arrays)
            self.head = Head.from_state(info, checkpoint.arrays)
            sizes = {
                name: (1, len(REGIONS), output["size"]) for name, output in info["outputs"].items()
            }
            self._p_fake(
                self._features({name: np.full(size, np.nan) for name, size in sizes.items()})
            )
        except ValueError as error:
            raise ValueError(f"{checkpoint.where}: {error}; train again") from error

    @property
    def threshold(self) -> float:
        """P(fake) from which on the verdict is fake."""
        return self.checkpoint.info["threshold"]["p_fake"]

    def score(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, F) float32, in the order of the checkpoint's columns, and P(fake) (N,) float64.

        arrays: "expert.output" -> (N, R, D) raw outputs. P(fake) is NaN for a face without a single
        feature. Raises: ValueError: not the outputs that the checkpoint was trained on.
        """
        values = self._features(arrays)
        return values, np.where(np.isnan(values).all(1), np.nan, self._p_fake(values))

    def _features(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.pipeline.transform(arrays).values

    def _p_fake(self, values: np.ndarray) -> np.ndarray:
        p_fake = self.head.p_fake(values)
        if not np.isfinite(p_fake).all():
            raise ValueError(f"the {self.head.kind} head gives scores that are not finite")
        return p_fake
