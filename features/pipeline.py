"""From raw outputs to the columns of one classifier, in training, inference and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features import columns, reference
from features.columns import FeatureTable, groups_of, predictable, raw_features
from features.expectations import Expectations, cross_fit, expected_names
from features.measures import Arrays, Outputs

PREFIX = "expectations."  # of the array names in a checkpoint
NO_OUTPUT = (
    "no {} face has an output that the chosen columns are made of (missing.csv in the dump says "
    "why); make the dump again, or choose other columns with --drop or --only"
)


def chosen_names(
    arrays: Arrays, outputs: Outputs, drop: Iterable[str] = (), only: Iterable[str] = ()
) -> list[str]:
    """The columns of these groups. Each begins with the output that it is about and a slash."""
    columns.check_outputs(arrays, outputs)
    one_face = {name: values[:1] for name, values in arrays.items()}
    names = raw_features(one_face, outputs).names + expected_names(outputs)
    return columns.select(names, drop, only)


@dataclass
class FeaturePipeline:
    """The columns of a classifier. outputs: the rows of a dump's table that a column is about."""

    outputs: dict[str, dict]
    names: list[str]
    expectations: Expectations | None

    @classmethod
    def fit(
        cls,
        arrays: Arrays,
        outputs: Outputs,
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

        real: (N,) bool; groups: N names, the features of a face are cross-fitted without its own;
        drop, only: groups of columns. Raises: ValueError: unknown columns, too few real faces.
        """
        real = np.asarray(real, dtype=bool)
        names = chosen_names(arrays, outputs, drop, only)
        with_values = {name for name in outputs if np.isfinite(arrays[name][real]).any()}
        used = {name.partition("/")[0] for name in names} & with_values
        if not used:
            raise ValueError(NO_OUTPUT.format("real training"))
        outputs = {name: dict(output) for name, output in outputs.items() if name in used}
        table, expectations = raw_features(arrays, outputs), None
        # Not columns that also need an output left out.
        available = {*table.names, *expected_names(outputs)}
        names = [name for name in names if name in available]
        if not names:
            raise ValueError("these columns compare two outputs, of which one is left out")
        if any("expected" in groups_of(name) for name in names):
            residuals, expectations = cross_fit(arrays, outputs, real, groups, seed=seed)
            table = table.beside(residuals)
        empty = np.array(table.names)[np.isnan(table.values[real]).all(0)]
        table = table.ordered([name for name in names if name not in set(empty)])
        return table, cls(outputs, table.names, expectations)

    def transform(self, arrays: Arrays) -> FeatureTable:
        table = raw_features(arrays, self.outputs)
        if self.expectations is not None:
            table = table.beside(self.expectations.residuals(arrays))
        of_person = [name for name in self.names if reference.MEASURE in groups_of(name)]
        if without := [name for name in of_person if name not in table.names]:
            unknown = np.full((len(table.values), len(without)), np.nan, np.float32)
            table = table.beside(FeatureTable(without, unknown))
        return table.ordered(self.names)

    def state(self) -> dict[str, np.ndarray]:
        state = {} if self.expectations is None else self.expectations.state()
        return {PREFIX + name: value for name, value in state.items()}

    @classmethod
    def from_state(cls, info: Mapping, arrays: Arrays) -> FeaturePipeline:
        """From a checkpoint's description, with `outputs` and `features`, and arrays."""
        outputs = info["outputs"]
        state = {k.removeprefix(PREFIX): v for k, v in arrays.items() if k.startswith(PREFIX)}
        expectations = Expectations.from_state(predictable(outputs), state) if state else None
        return cls(outputs, list(info["features"]), expectations)
