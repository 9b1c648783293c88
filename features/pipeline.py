"""From raw outputs to the columns of one classifier, in training, inference and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.columns import (
    FeatureTable,
    check_outputs,
    groups_of,
    predictable,
    raw_features,
    select,
)
from features.expectations import Expectations, cross_fit, expected_names

PREFIX = "expectations."  # of the array names in a checkpoint


@dataclass
class FeaturePipeline:
    """The columns of a classifier.

    Attributes:
        outputs: the rows of a dump's table of outputs that a column is about.
        names: the columns, in order.
        expectations: None where no column needs them.
    """

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
        """Fit on training faces.

        Columns without a value on any real face are left out. An output that no column is about, or
        that has no value for any real face, predicts no other either: an ablation removes it
        completely.

        Args:
            arrays: "expert.output" -> (N, R, D).
            outputs: the table of a dump's meta.json.
            real: (N,) bool.
            groups: N names.
            drop, only: groups of columns (features/columns.py).
            seed: of the folds.

        Returns:
            The features of these faces, each cross-fitted without its own group; and the pipeline.

        Raises:
            ValueError: unknown groups of columns, missing outputs, too few real faces.
        """
        real = np.asarray(real, dtype=bool)
        check_outputs(arrays, outputs)
        one_face = {name: arrays[name][:1] for name in outputs}
        all_names = raw_features(one_face, outputs).names + expected_names(outputs)
        names = select(all_names, drop, only)
        with_values = {name for name in outputs if np.isfinite(arrays[name][real]).any()}
        used = {name.partition("/")[0] for name in names} & with_values
        if not used:
            raise ValueError("no expert of these columns has an output for any real face")
        outputs = {name: dict(output) for name, output in outputs.items() if name in used}
        table, expectations = raw_features(arrays, outputs), None
        # Not columns that also need an output left out.
        available = {*table.names, *expected_names(outputs)}
        names = [name for name in names if name in available]
        if not names:
            raise ValueError(
                "these columns compare two outputs, of which one is left out; keep both, or drop "
                "the columns"
            )
        if any("expected" in groups_of(name) for name in names):
            residuals, expectations = cross_fit(arrays, outputs, real, groups, seed=seed)
            table = table.beside(residuals)
        known = ~np.isnan(table.values[real]).all(0)
        known = {name for name, has_values in zip(table.names, known, strict=True) if has_values}
        table = table.ordered([name for name in names if name in known])
        return table, cls(outputs, table.names, expectations)

    def transform(self, arrays: Mapping[str, np.ndarray]) -> FeatureTable:
        """The features of new faces. arrays: "expert.output" -> (N, R, D).

        Raises: ValueError where outputs are missing or have other shapes.
        """
        table = raw_features(arrays, self.outputs)
        if self.expectations is not None:
            table = table.beside(self.expectations.residuals(arrays))
        return table.ordered(self.names)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint, named `expectations.*`."""
        state = {} if self.expectations is None else self.expectations.state()
        return {PREFIX + name: value for name, value in state.items()}

    @classmethod
    def from_state(cls, info: Mapping, arrays: Mapping[str, np.ndarray]) -> FeaturePipeline:
        """From a checkpoint's description, with `outputs` and `features`, and arrays.

        Raises: ValueError where they do not belong together.
        """
        outputs = info["outputs"]
        state = {
            name.removeprefix(PREFIX): value
            for name, value in arrays.items()
            if name.startswith(PREFIX)
        }
        expectations = Expectations.from_state(predictable(outputs), state) if state else None
        return cls(outputs, list(info["features"]), expectations)
