"""A face against photographs of a person: similarities, claims, and what they mean."""

import json
from dataclasses import replace

import numpy as np
import pytest

from data.claims import FACE, GENUINE, HEAD, OTHER, claims_of, datasets_with_people
from data.feature_dataset import FeatureDataset
from evaluation import events, reference
from evaluation.metrics import auc
from features.columns import predictable, raw_features
from features.reference import PATTERNS, compared, identities, names_of, pooled, similarities
from features.regions import REGIONS
from inference.comparison import CANNOT_TELL, QUANTILES, Comparison, Fit, similarities_of
from tests.toy_people import INNER, OUTER, OUTPUTS, WHOLE, toy_people
from training.reference import LIMITS, fits_of, main, weights_of
from training.reference import Config as FitConfig


@pytest.fixture(scope="module")
def comparison():
    columns, fits, about = fits_of(toy_people(), OUTPUTS, 0.05)
    about |= {"fpr": 0.05}
    return Comparison(tuple(columns), {"lite": "0" * 64}, fits, LIMITS, about)


def test_photographs_are_pooled_as_the_mean_of_unit_vectors():
    one, other = np.zeros((2, len(REGIONS), 2))
    one[:, 0], other[:, 1] = 5.0, 0.1  # lengths do not count
    person = pooled(np.stack([one, other]))
    np.testing.assert_allclose(person, np.full((len(REGIONS), 2), np.sqrt(0.5)), rtol=1e-6)
    lost = other.copy()
    lost[INNER] = np.nan  # of one photograph
    person = pooled(np.stack([one, lost]))
    np.testing.assert_allclose(person[INNER], (1, 0))
    assert np.isnan(pooled(np.full((2, len(REGIONS), 2), np.nan))).all()


def test_regions_are_compared_with_the_same_regions():
    rng = np.random.default_rng(0)
    face = rng.normal(size=(len(REGIONS), 8))
    other = face.copy()
    other[OUTER] = -face[OUTER]
    wanted = np.ones(len(REGIONS))
    wanted[OUTER] = -1
    np.testing.assert_allclose(similarities(face, other), wanted, atol=1e-6)
    both = compared({"a": face, "b": other}, {"a": face, "b": face}, ("a", "b"))
    np.testing.assert_allclose(both, [*np.ones(len(REGIONS)), *wanted], atol=1e-6)
    assert len(names_of(("a", "b"))) == len(both)
    assert names_of(OUTPUTS)[OUTER] == "lite.identity/reference/outer"


def test_identities_are_embeddings_called_so():
    outputs = {"lite.age": {"kind": "distribution"}, "arcface.identity": {"kind": "embedding"}}
    outputs |= {"clip.embedding": {"kind": "embedding"}, "x.identity": {"kind": "vector"}}
    outputs |= {"head.likeness": {"kind": "person"}}
    assert identities(outputs) == ["arcface.identity", "head.likeness"]


def test_outputs_for_photographs_are_not_compared_between_regions():
    faces = np.random.default_rng(0).normal(size=(3, len(REGIONS), 4))
    arrays = {"lite.identity": faces, "head.likeness": faces}
    outputs = {"lite.identity": {"kind": "embedding", "size": 4}}
    both = outputs | {"head.likeness": {"kind": "person", "size": 4}}
    assert raw_features(arrays, both).names == raw_features(arrays, outputs).names
    assert list(predictable(both)) == ["lite.identity"]
    with pytest.raises(ValueError, match="none of the outputs is compared"):
        raw_features(arrays, {"head.likeness": both["head.likeness"]})


def test_claims_never_use_the_pictures_that_a_swap_was_made_of():
    faces = toy_people()
    claims, paths = claims_of(faces.rows), faces.rows["path"]
    assert set(claims.kind) == {GENUINE, HEAD, FACE, OTHER}
    for row, kind, name, photographs in zip(
        claims.row, claims.kind, claims.person, claims.photographs, strict=True
    ):
        own, donor = faces.rows["person"][row], faces.rows["donor"][row]
        assert name == {GENUINE: own, HEAD: own, FACE: donor}.get(kind, name)
        assert (kind == OTHER) == (name not in (own, donor))
        assert set(faces.rows["person"][photographs]) == {name}
        assert not faces.rows["label"][photographs].any()
        sources = paths[row].rpartition("/")[2].removesuffix(".jpg").split("__")
        assert not {paths[i].rpartition("/")[2].removesuffix(".jpg") for i in photographs} & {
            *sources
        }
    again = claims_of(faces.rows)
    assert all(map(np.array_equal, claims.photographs, again.photographs))
    three = claims.with_photographs(3)
    assert len(three) and all(len(found) == 3 for found in three.photographs)
    # A swap's own picture is not among its person's photographs: of four, three are left.
    assert (claims.with_photographs(4).kind == OTHER).all()


def test_claims_of_frames_use_other_clips_of_the_same_split():
    names = ("path", "label", "video", "person", "donor", "split")
    rows = [
        ("id1_0001.mp4#0", 0, "id1_0001.mp4", "id1", "", "train"),
        ("id1_0001.mp4#1", 0, "id1_0001.mp4", "id1", "", "train"),
        ("id1_0002.mp4#0", 0, "id1_0002.mp4", "id1", "", "train"),
        ("id1_0003.mp4#0", 0, "id1_0003.mp4", "id1", "", "test"),
        ("id1_id2_0001.mp4#0", 1, "id1_id2_0001.mp4", "id1", "id2", "train"),
    ]
    table = {
        name: np.array(x, object) for name, x in zip(names, zip(*rows, strict=True), strict=True)
    }
    claims = claims_of(table)
    found = {
        (int(r), int(k)): set(p)
        for r, k, p in zip(claims.row, claims.kind, claims.photographs, strict=True)
    }
    assert found == {(0, GENUINE): {2}, (1, GENUINE): {2}, (2, GENUINE): {0, 1}, (4, HEAD): {2}}


def test_without_people_there_are_no_claims():
    rows = {
        name: np.array(["", ""], object) for name in ("path", "video", "person", "donor", "split")
    }
    assert len(claims_of(rows | {"label": np.array([0, 1])})) == 0


def test_each_pattern_is_named_on_people_never_seen(comparison):
    faces = toy_people("test", seed=1)
    for count in (1, 3):
        claims = claims_of(faces.rows).with_photographs(count)
        values = similarities_of(claims, OUTPUTS, faces.arrays)
        fit = comparison.of(count)
        p = fit.probabilities(values)
        np.testing.assert_allclose(p.sum(1), 1)
        named = np.array([fit.pattern(each) for each in p], object)
        for place, pattern in enumerate(PATTERNS):
            assert (named[claims.kind == place] == pattern).mean() > 0.8, (count, pattern)
        alarms = (1 - p[claims.kind == GENUINE, 0] >= fit.threshold).mean()
        assert alarms < 0.2
    assert comparison.of(8) is comparison.fits[3] and comparison.of(0) is comparison.fits[1]


def test_ranks_are_shares_of_genuine_pairs_and_of_different_people(comparison):
    fit = comparison.of(1)
    genuine, different = fit.ranks(
        np.stack([fit.genuine[100], fit.different[100], fit.genuine[0] - 1])
    )
    np.testing.assert_allclose(genuine[0], QUANTILES[100], atol=0.03)  # the median
    np.testing.assert_allclose(different[1], 1 - QUANTILES[100], atol=0.03)
    np.testing.assert_allclose(genuine[2], 0)
    assert (different[0] < 0.2).all()  # few pairs of different people are as alike


def test_kinds_of_claims_weigh_as_the_prior_says():
    kind = np.array([0] * 10 + [1] * 30 + [2] * 5 + [3] * 5)
    weight = weights_of(kind)
    assert [round(weight[kind == k].sum() / len(kind), 3) for k in range(4)] == [
        0.5,
        0.167,
        0.167,
        0.167,
    ]


def test_between_the_two_limits_nothing_is_told(comparison):
    fit = replace(comparison.of(1), threshold=0.8, clear_below=0.3)
    told = [fit.pattern(np.array([1 - p, p, 0, 0])) for p in (0.1, 0.29, 0.31, 0.79, 0.81)]
    assert told == ["consistent"] * 2 + [CANNOT_TELL] * 2 + ["another face on this head"]
    assert fit.pattern(np.full(4, np.nan)) == CANNOT_TELL


def test_a_comparison_comes_back_as_it_was_written(comparison, tmp_path):
    path = tmp_path / "reference.json"
    comparison.save(path)
    again = Comparison.load(path)
    values = np.random.default_rng(0).uniform(-1, 1, (5, len(comparison.columns)))
    for count, fit in comparison.fits.items():
        np.testing.assert_array_equal(
            again.fits[count].probabilities(values), fit.probabilities(values)
        )
        assert again.fits[count].threshold == fit.threshold
    assert (again.outputs, again.weights, again.limits) == (OUTPUTS, comparison.weights, LIMITS)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data["fits"]["1"].pop("weights"),
        lambda data: data["fits"].pop("1"),
        lambda data: data["fits"]["1"]["centre"].append(0.0),
        lambda data: data["fits"]["1"].update(threshold=2.0),
        lambda data: data["fits"]["1"]["genuine"][0].__setitem__(0, float("nan")),
        lambda data: data.update(format=0),
        lambda data: data.pop("limits"),
    ],
)
def test_a_damaged_comparison_is_refused(comparison, tmp_path, spoil):
    path = tmp_path / "reference.json"
    comparison.save(path)
    data = json.loads(path.read_text())
    spoil(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"reference\.json.*(damaged|version)"):
        Comparison.load(path)
    with pytest.raises(FileNotFoundError, match="training/reference"):
        Comparison.load(tmp_path / "other.json")


def test_a_fit_needs_claims_of_every_kind(tmp_path):
    faces = toy_people()
    few = faces.select(faces.rows["label"] == 0)
    with pytest.raises(ValueError, match="0 another face on this head"):
        fits_of(few, OUTPUTS, 0.05)
    with pytest.raises(ValueError, match="--fpr"):
        main(FitConfig((), fpr=1.0))


def test_regions_that_an_expert_does_not_see_do_not_count():
    faces = toy_people()
    head = np.zeros_like(faces.arrays["lite.identity"])
    head[:, OUTER] = faces.arrays["lite.identity"][:, OUTER]
    arrays = faces.arrays | {"head.likeness": head}
    outputs = ("lite.identity", "head.likeness")
    columns, fits, about = fits_of(replace(faces, arrays=arrays), outputs, 0.05)
    assert columns == [*names_of(OUTPUTS), "head.likeness/reference/outer"]
    comparison = Comparison(tuple(columns), {}, fits, LIMITS, about)
    assert comparison.outputs == outputs
    assert comparison.column("outer") == len(REGIONS) and comparison.column("full") == WHOLE
    face = {name: x[0].astype(float) for name, x in arrays.items()}
    np.testing.assert_allclose(comparison.compared(face, face), 1, atol=1e-6)


def test_wide_shapes_refuse(comparison):
    fit = comparison.of(1)
    with pytest.raises(ValueError, match="weights"):
        Fit(**{**vars(fit), "weights": fit.weights[:3]})
    with pytest.raises(ValueError, match="clear_below"):
        Fit(**{**vars(fit), "clear_below": 0.9, "threshold": 0.5})


def test_the_protocol_tells_claims_systems_and_degradations(comparison):
    faces = toy_people("test", seed=1)
    assert datasets_with_people(faces.rows, 20) == ["toy"]
    assert datasets_with_people(faces.select(faces.rows["label"] == 1).rows, 20) == []
    lost = {"lite.identity": faces.arrays["lite.identity"].copy()}
    noisy = lost["lite.identity"] + np.random.default_rng(0).normal(
        0, 2, lost["lite.identity"].shape
    )
    worse = replace(faces, arrays={"lite.identity": noisy.astype(np.float16)})
    p_fake = faces.rows["label"] * 0.5 + np.random.default_rng(1).random(len(faces)) * 0.6
    rows = [*reference.figures(faces, comparison, 20, lambda some: p_fake, {"jpeg:1": worse})]

    def value(metric="auc", system=reference.MASC, condition="", group="", size=1, **test):
        wanted = {"metric": metric, "system": system, "size": size, **test}
        found = [
            row
            for row in rows
            if {k: row.get(k) for k in wanted} == wanted
            and (row.get("condition", ""), row.get("group", "")) == (condition, group)
        ]
        assert len(found) == 1, (wanted, found)
        return found[0]["value"]

    face, head = "face's person", "head's person"
    assert value(test=face) > 0.9 and value(test=head) > 0.9
    assert value(test=face, size=3) >= value(test=face) - 0.02
    # Only what the claim is about differs.
    assert value(system="region outer (lite.identity)", test=face) > 0.9
    assert value(system="region inner (lite.identity)", test=face) < 0.7
    assert value(system="region inner (lite.identity)", test=head) > 0.9
    plain = "whole-face verification (lite.identity)"
    delta = value("delta_auc", plain, test=face)
    assert delta == pytest.approx(value(test=face) - value(system=plain, test=face), abs=1e-9)
    assert value("delong_p", plain, test=face) < 0.05
    claims = claims_of(faces.rows).with_photographs(1)
    keep = np.isin(claims.kind, (GENUINE, FACE))
    alone = auc((claims.kind[keep] == FACE).astype(int), p_fake[claims.row[keep]])
    assert value(system=reference.SINGLE, test=face) == pytest.approx(alone)
    for group in (reference.SUSPECT, reference.PHOTOGRAPHS):
        assert value(test=face, condition="jpeg:1", group=group) < value(test=face) - 0.005
    alarms = [row for row in rows if row["metric"] == "false_alarms" and row["size"] == 1]
    assert alarms[0]["n"] == (claims.kind == GENUINE).sum()
    (error,) = (row["value"] for row in rows if row["metric"] == "ece")
    assert 0 < error < 0.1
    named = [row["value"] for row in rows if row["test"].startswith("coverage")]
    assert named == sorted(named) and named[0] > 0.9  # the surest answers are the best


def test_a_dump_of_other_experts_gets_a_comparison_of_its_own(monkeypatch, tmp_path, comparison):
    val, test = toy_people(), toy_people("test", seed=1)
    rows = {name: np.concatenate([val.rows[name], test.rows[name]]) for name in val.rows}
    arrays = {"lite.identity": np.concatenate([x.arrays["lite.identity"] for x in (val, test)])}
    both = FeatureDataset(arrays, rows)
    meta = {"weights": {"lite": "1" * 64}, "outputs": {"lite.identity": {"kind": "embedding"}}}
    path = tmp_path / "reference.json"
    comparison.save(path)
    for name in ("REFERENCE", "REFERENCE_LITE"):
        monkeypatch.setattr(reference, name, path)
    found = reference.comparison_for(both, meta)
    np.testing.assert_allclose(found.of(1).weights, comparison.of(1).weights)
    assert found.weights == {}
    assert reference.comparison_for(both, meta | {"weights": comparison.weights}).weights
    assert reference.comparison_for(test, meta) is None  # nobody of `val`


def test_faces_lost_to_a_degradation_are_missing_in_their_rows():
    faces = toy_people("test")
    some = faces.select(np.arange(len(faces))[::-1][:-5])
    some.rows["sharpness"] = np.full(len(some), 7000.0)
    found = reference.aligned(faces, some)
    assert (found.rows["sharpness"][5:] == 7000).all() and np.isnan(
        found.rows["sharpness"][:5]
    ).all()
    assert (faces.rows["sharpness"] == 100).all()
    np.testing.assert_array_equal(
        found.arrays["lite.identity"][5:], faces.arrays["lite.identity"][5:]
    )
    assert np.isnan(found.arrays["lite.identity"][:5]).all()


def test_events_are_told_by_surroundings():
    rng = np.random.default_rng(0)
    scenes = rng.random((200, 12, 12, 3))
    crops = np.concatenate([scenes, scenes + rng.normal(0, 0.02, scenes.shape)])
    crops = np.concatenate([crops, np.ones((*crops.shape[:3], 1))], axis=-1).astype(np.float32)
    crops[3, ..., 3] = 0  # nothing is known of its surroundings
    first = np.arange(200)
    same = events.same_event(crops, first, first + 200)
    assert same[np.arange(200) != 3].all() and not same[3]
    assert events.same_event(crops, first, (first + 7) % 200).mean() < 0.05
