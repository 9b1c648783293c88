"""From raw answers to the columns of one classifier: the only place where features are put together.

Fitting (train.py), judging pictures (predict.py) and tables (evaluate.py) all go through it, so they see the same columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.columns import FeatureTable, groups_of, predictable, raw_features, select
from features.expectations import Expectations, cross_fit, expected_names

PREFIX = "expectations."  # of the array names in a checkpoint


@dataclass
class FeaturePipeline:
    """outputs: of the table of a dump's meta.json those that a column is about; names: the columns, in order; expectations:
    None where no column needs them."""

    outputs: dict[str, dict]
    names: list[str]
    expectations: Expectations | None

    @classmethod
    def fit(
        cls,
        arrays: Mapping[str, np.ndarray],
        outputs: Mapping[str, Mapping],
        real: np.ndarray,
        groups: Sequence[str],
        drop: Iterable[str] = (),
        only: Iterable[str] = (),
        seed: int = 0,
    ) -> tuple[FeatureTable, FeaturePipeline]:
        """Fit on training faces, and the features of those same faces, each judged without its own group.

        arrays: "expert.output" -> (N, R, D); real: (N,) bool; groups: N names; drop, only: groups of columns, see
        features/columns.py. Columns without a single value on these real faces are left out. An output that no column is
        about, or that no real face has an answer of, is not used at all, neither to expect others: an ablation leaves no
        trace of it. (So `only=["pyfeat.au"]` has no columns that also need the emotions.)

        Raises: ValueError for unknown groups of columns, missing outputs, too few real faces.
        """
        table, expectations = raw_features(arrays, outputs), None
        names = select(table.names + expected_names(outputs), drop, only)
        answered = {
            name for name in outputs if np.isfinite(arrays[name][np.asarray(real, bool)]).any()
        }
        used = {name.partition("/")[0] for name in names} & answered
        if not used:
            raise ValueError(
                "no expert that these columns are about has answered a single real face"
            )
        if used != set(outputs):
            outputs = {name: output for name, output in outputs.items() if name in used}
            table = raw_features(arrays, outputs)
            there = {*table.names, *expected_names(outputs)}
            names = [
                name for name in names if name in there
            ]  # not those that also need an output left out
        if any("expected" in groups_of(name) for name in names):
            residuals, expectations = cross_fit(arrays, outputs, real, groups, seed=seed)
            table = table.beside(residuals)
        table = table.ordered(names)
        if not names:
            raise ValueError(
                "these columns compare two outputs, of which one is left out; keep both, or drop the columns"
            )
        known = ~np.isnan(table.values[np.asarray(real, dtype=bool)]).all(0)
        table = table.ordered(
            [name for name, there in zip(table.names, known, strict=True) if there]
        )
        return table, cls(
            {name: dict(output) for name, output in outputs.items()}, table.names, expectations
        )

    def transform(self, arrays: Mapping[str, np.ndarray]) -> FeatureTable:
        """The features `names` of new faces. arrays: "expert.output" -> (N, R, D).

        Raises: ValueError where outputs are missing or have other shapes.
        """
        table = raw_features(arrays, self.outputs)
        if self.expectations is not None:
            table = table.beside(self.expectations.residuals(arrays))
        return table.ordered(self.names)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint, names beginning with `expectations.`; `outputs` and `names` are for its description."""
        state = {} if self.expectations is None else self.expectations.state()
        return {PREFIX + name: value for name, value in state.items()}

    @classmethod
    def from_state(cls, info: Mapping, arrays: Mapping[str, np.ndarray]) -> FeaturePipeline:
        """From a checkpoint: info holds `outputs` and `features` (names), arrays what `state` gave.

        Raises: ValueError where they do not belong together.
        """
        outputs, names = info["outputs"], list(info["features"])
        state = {
            name.removeprefix(PREFIX): value
            for name, value in arrays.items()
            if name.startswith(PREFIX)
        }
        return cls(
            outputs, names, Expectations.from_state(predictable(outputs), state) if state else None
        )
