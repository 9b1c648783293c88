"""What one region of a real face lets one expect of another, and how far a face departs from it.

From everything that is said of region A, ridge regression (Hoerl & Kennedy, Technometrics 1970), fitted on real faces,
predicts each answer about region B. The residual is the feature: a chin says little about the age of the eyes, so a
disagreement there counts little. Distributions are compared as centred log-ratios (Aitchison, JRSS B 1982), all outputs as
principal components of the real faces' answers.

An expectation remembers the people it was fitted on. `cross_fit` therefore gives every face a residual from a fit without
its group, and figures should come from people in none of the groups (data/people.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from features.columns import EXPECTED, INDEX, FeatureTable, check_outputs, predictable
from features.measures import FLOOR, cosine
from features.regions import PAIRS, REGIONS

# Of each pair both directions. The whole face is expected from its parts, too: it holds what the part does not show.
DIRECTIONS = tuple(direction for pair in PAIRS for direction in (pair, pair[::-1]))
COMPONENTS = {
    "embedding": 48,
    "vector": 16,
}  # at most; a distribution over D classes has D - 1, a scalar 1
RIDGE = 30.0  # in real faces: so many imaginary ones whose regions tell nothing of each other
MIN_REALS = 20  # faces; below this a fit is noise


def expected_names(outputs: Mapping[str, Mapping]) -> list[str]:
    """The columns of `Expectations.residuals`, in order: of the outputs that can be foreseen."""
    names = []
    for start, end in DIRECTIONS:
        for name, output in predictable(outputs).items():
            measures = EXPECTED if output["kind"] == "embedding" else EXPECTED[:1]
            names += [f"{name}/{measure}/{start}>{end}" for measure in measures]
    return names


def _to_plane(predictions: np.ndarray, kind: str) -> np.ndarray:
    """Answers where a straight line makes sense. (N, R, D) any float -> (N, R, D) float32, NaN where not finite."""
    predictions = np.asarray(predictions, dtype=np.float32)
    predictions = np.where(np.isfinite(predictions), predictions, np.nan)
    if kind != "distribution":
        return predictions
    logs = np.log(np.maximum(predictions, FLOOR))
    return logs - logs.mean(-1, keepdims=True)


def _storable(values: np.ndarray) -> np.ndarray:
    """Rounded to float16, which checkpoints hold, so that a reloaded fit answers with the same bits."""
    return values.astype(np.float16).astype(np.float32)


def shrunk_covariance(residuals: np.ndarray) -> np.ndarray:
    """Second moments about zero, shrunk towards a multiple of the identity (OAS: Chen et al., IEEE Trans. SP 2010).

    residuals: (N, d) with mean 0. Returns: (d, d).
    """
    count, size = residuals.shape
    moments = residuals.T @ residuals / count
    mean = np.trace(moments) / size
    squares = (moments**2).sum() / size**2
    gap = (count + 1) * (squares - mean**2 / size)
    weight = min(1.0, (squares + mean**2) / gap) if gap > 0 else 1.0
    return (1 - weight) * moments + weight * mean * np.eye(size)


@dataclass
class Expectations:
    """Fitted on real faces: principal components of every output, and for every direction a linear map and a scale.

    means: output -> (D,); bases: output -> (D, k): components of unit variance over faces and regions.
    centres: (R, P): mean components of each region, all outputs side by side (P = sum of k).
    maps: "A>B" -> (P, P): components at A to expected components at B. whiten: "A>B/output" -> (k, k): residual components
    to ones of unit covariance on real faces. outputs: the table of a dump's meta.json.
    """

    outputs: dict[str, dict]
    means: dict[str, np.ndarray]
    bases: dict[str, np.ndarray]
    centres: np.ndarray
    maps: dict[str, np.ndarray]
    whiten: dict[str, np.ndarray]

    @classmethod
    def fit(
        cls, arrays: Mapping[str, np.ndarray], outputs: Mapping[str, Mapping], rows: np.ndarray
    ) -> Expectations:
        """Fit on the faces `rows` (N,) bool or indices: real ones only, please. Faces with a missing answer do not count.

        Raises: ValueError where fewer than MIN_REALS faces remain.
        """
        check_outputs(arrays, outputs)
        means, bases, parts = {}, {}, []
        planes = {
            name: _to_plane(arrays[name][rows], output["kind"]) for name, output in outputs.items()
        }
        whole = ~np.any([np.isnan(plane).any((1, 2)) for plane in planes.values()], axis=0)
        if whole.sum() < MIN_REALS:
            counts = {
                name: int(np.isnan(plane).any((1, 2)).sum()) for name, plane in planes.items()
            }
            told = [f"{count} lack {name}" for name, count in counts.items() if count]
            lacking = f" (or an expert: {', '.join(told)})" if told else ""
            raise ValueError(
                f"{whole.sum()} real faces with all answers; expectations need at least {MIN_REALS}: add real faces, or drop "
                f"the columns `expected`{lacking}"
            )
        for name, plane in planes.items():
            means[name], bases[name] = _components(
                plane[whole].reshape(-1, plane.shape[2]), outputs[name]["kind"]
            )
            parts.append((plane[whole] - means[name]) @ bases[name])
        scores = np.concatenate(parts, axis=2)
        centres = _storable(scores.mean(0))
        fitted = cls(
            {name: dict(output) for name, output in outputs.items()}, means, bases, centres, {}, {}
        )
        fitted._fit_maps(scores - centres)
        return fitted

    def _fit_maps(self, scores: np.ndarray) -> None:
        """scores: (N, R, P), centred in each region."""
        count, _, size = scores.shape
        for start in REGIONS:
            x = scores[:, INDEX[start]].astype(np.float64)
            gram = x.T @ x
            factor = linalg.cho_factor(gram + RIDGE * np.eye(size))
            # How much larger residuals are on faces outside the fit: Akaike's final prediction error (1969), with the
            # effective degrees of freedom of ridge (Hastie et al., ESL, eq. 3.50).
            freedom = np.trace(linalg.cho_solve(factor, gram)) + 1
            widen = np.sqrt((count + freedom) / max(count - freedom, 0.1 * count))
            for _, end in (direction for direction in DIRECTIONS if direction[0] == start):
                y = scores[:, INDEX[end]].astype(np.float64)
                self.maps[f"{start}>{end}"] = _storable(linalg.cho_solve(factor, x.T @ y))
                residuals = y - x @ self.maps[f"{start}>{end}"]
                residuals *= widen
                for name, columns in self._columns():
                    values, vectors = np.linalg.eigh(shrunk_covariance(residuals[:, columns]))
                    scale = np.sqrt(np.maximum(values, 1e-6))
                    self.whiten[f"{start}>{end}/{name}"] = _storable(vectors / scale)

    def _columns(self) -> Iterator[tuple[str, slice]]:
        """Which of the P components belong to each output."""
        start = 0
        for name, basis in self.bases.items():
            yield name, slice(start, start + basis.shape[1])
            start += basis.shape[1]

    def _scores(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N, R, P) float32 components, centred in each region."""
        parts = [
            (_to_plane(arrays[name], output["kind"]) - self.means[name]) @ self.bases[name]
            for name, output in self.outputs.items()
        ]
        return np.concatenate(parts, axis=2) - self.centres

    def residuals(self, arrays: Mapping[str, np.ndarray]) -> FeatureTable:
        """How far each face departs from what is expected of it, for every direction and output.

        `lite.age/expected/upper>lower`: length of the whitened residual, root mean square over its components: about 1 on
        unseen real faces. Embeddings also `lite.identity/expected_cos/upper>lower`: cosine of the expected and the given
        answer, both taken from the mean real face. A missing answer is NaN in its own columns; to the others it says nothing,
        as the answer of the mean real face would.

        Raises: ValueError where `arrays` are not the outputs this was fitted on.
        """
        check_outputs(arrays, self.outputs)
        scores = self._scores(arrays)
        told = np.nan_to_num(scores)
        columns = []
        for start, end in DIRECTIONS:
            arrow = f"{start}>{end}"
            given = scores[:, INDEX[end]]
            expected = told[:, INDEX[start]] @ self.maps[arrow]
            for name, span in self._columns():
                white = (given[:, span] - expected[:, span]) @ self.whiten[f"{arrow}/{name}"]
                columns.append(np.sqrt((white**2).mean(1)))
                if self.outputs[name]["kind"] == "embedding":
                    columns.append(cosine(expected[:, span], given[:, span]))
        return FeatureTable(
            expected_names(self.outputs), np.stack(columns, axis=1).astype(np.float32)
        )

    def state(self) -> dict[str, np.ndarray]:
        """Everything but `outputs`, as named float16 arrays."""
        tables = {
            "means": self.means,
            "bases": self.bases,
            "maps": self.maps,
            "whiten": self.whiten,
        }
        state = {
            f"{table}/{key}": value
            for table, entries in tables.items()
            for key, value in entries.items()
        }
        return {
            key: value.astype(np.float16)
            for key, value in {"centres": self.centres, **state}.items()
        }

    @classmethod
    def from_state(
        cls, outputs: Mapping[str, Mapping], state: Mapping[str, np.ndarray]
    ) -> Expectations:
        """What `state` came from. Raises: ValueError where it does not belong to `outputs`."""
        tables: dict[str, dict[str, np.ndarray]] = {
            "means": {},
            "bases": {},
            "maps": {},
            "whiten": {},
        }
        for key, value in state.items():
            table, _, entry = key.partition("/")
            if table in tables:
                tables[table][entry] = value.astype(np.float32)
        arrows = {f"{a}>{b}" for a, b in DIRECTIONS}
        whitened = {f"{arrow}/{name}" for arrow in arrows for name in outputs}
        if (
            set(tables["bases"]) != set(outputs)
            or set(tables["maps"]) != arrows
            or set(tables["whiten"]) != whitened
        ):
            raise ValueError(
                "these expectations were fitted on other outputs or regions; train again"
            )
        # The order of the outputs is the order of the columns of every map.
        tables["bases"] = {name: tables["bases"][name] for name in outputs}
        outputs = {name: dict(output) for name, output in outputs.items()}
        return cls(outputs, centres=state["centres"].astype(np.float32), **tables)


def _components(predictions: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and principal directions (D, k), scaled to unit variance. answers: (M, D)."""
    mean = _storable(predictions.mean(0))
    centred = predictions - mean
    variances, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred / len(predictions))
    size = predictions.shape[1]
    wanted = min(COMPONENTS.get(kind, size), size - 1 if kind == "distribution" else size)
    # Directions without variance (fewer faces than components) would be noise, divided by nearly nothing.
    kept = max(1, min(wanted, int((variances > 1e-6 * variances[-1]).sum())))
    scale = np.sqrt(np.maximum(variances[-kept:], 1e-8))
    return mean, _storable((vectors[:, -kept:] / scale)[:, ::-1])


def _folds(groups: np.ndarray, real: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each row, (N,) int: whole groups, those with most real faces first, dealt out in random order."""
    unique, codes = np.unique(groups, return_inverse=True)
    reals = np.bincount(codes, weights=real)
    order = np.random.default_rng(seed).permutation(len(unique))
    order = order[np.argsort(-reals[order], kind="stable")]
    fold_of = np.empty(len(unique), dtype=int)
    fold_of[order] = np.arange(len(unique)) % folds
    return fold_of[codes]


def cross_fit(
    arrays: Mapping[str, np.ndarray],
    outputs: Mapping[str, Mapping],
    real: np.ndarray,
    groups: Sequence[str],
    folds: int = 5,
    seed: int = 0,
) -> tuple[FeatureTable, Expectations]:
    """Residuals of all faces, each from a fit without its group, and the expectations fitted on all real faces.

    real: (N,) bool; groups: N names. Real or fake, a face is judged by the real faces of other groups only.
    Raises: ValueError where the real faces are of fewer than 2 groups, or too few.
    """
    groups, real, outputs = np.asarray(groups), np.asarray(real, dtype=bool), predictable(outputs)
    people = len(np.unique(groups[real]))
    if people < 2:
        raise ValueError(
            f"real faces of {people} group(s); expectations need at least 2 to be cross-fitted"
        )
    fitted = Expectations.fit(arrays, outputs, real)
    fold = _folds(groups, real, min(folds, people), seed)
    tables, places = [], []
    for number in np.unique(fold):
        inside = np.flatnonzero(fold == number)
        without = Expectations.fit(arrays, outputs, real & (fold != number))
        tables.append(without.residuals({name: arrays[name][inside] for name in outputs}))
        places.append(inside)
    values = np.concatenate([table.values for table in tables])
    return FeatureTable(tables[0].names, values[np.argsort(np.concatenate(places))]), fitted
