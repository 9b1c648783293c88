"""Who is joined with whom, and who must not be."""

import numpy as np
import pytest

from data import people
from data.feature_dataset import FeatureDataset
from data.people import adapted, identity_groups, largest_share, near_identity_matches
from data.splits import grouped_split


def unit(*degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def crowd(people: np.ndarray, noise: float, size: int = 64, seed: int = 0) -> np.ndarray:
    """Embeddings of faces. people: (N,) int, who it is."""
    look = np.random.default_rng(seed).normal(size=(int(people.max()) + 1, size))
    return look[people] + noise * np.random.default_rng(seed + 1).normal(size=(len(people), size))


def test_faces_of_one_person_share_a_group():
    groups = identity_groups(
        unit(0, 10, 90, 180), ["a", "b", "c", "d"], np.ones(4, bool), threshold=0.9
    )
    assert groups == ["a", "a", "c", "d"]


def test_links_chain_and_given_groups_stay_together():
    embeddings = unit(0, 20, 40, 200, 140)
    groups = identity_groups(
        embeddings, ["c", "b", "a", "c", "d"], np.ones(5, bool), threshold=0.88
    )
    assert groups == ["a", "a", "a", "a", "d"]


def test_a_fake_goes_with_its_group_and_joins_nobody():
    embeddings = unit(0, 90, 90, 0)
    real = np.array([True, False, True, False])
    assert identity_groups(embeddings, ["a", "a", "b", "c"], real, threshold=0.9) == [
        "a",
        "a",
        "b",
        "c",
    ]


def test_faces_without_a_group_stand_alone_and_lengths_do_not_matter():
    embeddings = unit(0, 0, 90, 180) * np.array([[1.0], [50.0], [1.0], [1.0]])
    groups = identity_groups(embeddings, ["", "", "", ""], np.ones(4, bool), threshold=0.9)
    assert groups[0] == groups[1] and len(set(groups)) == 3


def test_missing_embeddings_join_nobody():
    embeddings = unit(0, 0, 0, 0)
    embeddings[1], embeddings[2] = np.nan, 0
    assert identity_groups(embeddings, list("abcd"), np.ones(4, bool), threshold=0.9) == [
        "a",
        "b",
        "c",
        "a",
    ]


def test_people_are_found_with_the_default_threshold_whatever_the_block(monkeypatch):
    people_of = np.random.default_rng(0).integers(0, 40, 300)
    embeddings = crowd(people_of, noise=0.4)
    names = [f"{row:03d}" for row in range(300)]
    whole = identity_groups(embeddings, names, np.ones(300, bool))
    assert len(set(whole)) == 40 == len(set(zip(whole, people_of.tolist(), strict=True)))
    monkeypatch.setattr(people, "BLOCK", 7)
    assert identity_groups(embeddings, names, np.ones(300, bool)) == whole


def test_what_all_faces_share_does_not_join_them():
    """A strong common part (dark crops, one camera) makes strangers alike until it is removed."""
    people_of = np.arange(600) // 3
    embeddings = crowd(people_of, noise=0.4, size=256) + 4 * np.random.default_rng(9).normal(
        size=256
    )
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    strangers = people_of[:, None] != people_of
    assert (units @ units.T)[strangers].min() > 0.8
    groups = identity_groups(embeddings, [f"{row:03d}" for row in range(600)], np.ones(600, bool))
    assert len(set(groups)) == 200 == len(set(zip(groups, people_of.tolist(), strict=True)))


def test_adapted_vectors_have_length_one_and_missing_ones_stay_missing():
    embeddings = crowd(np.arange(50), noise=0.0)
    embeddings[3], embeddings[4] = np.nan, 0
    units = adapted(embeddings, np.arange(50) != 7)
    assert np.isnan(units[[3, 4]]).all()
    assert np.allclose(np.linalg.norm(np.delete(units, [3, 4], axis=0), axis=1), 1, atol=1e-5)


def test_lookalikes_are_real_faces_near_real_faces_of_the_other_side():
    people_of = np.repeat(np.arange(100), 4)
    embeddings, real = crowd(people_of, noise=0.8), np.tile([True, True, True, False], 100)
    among, of = np.tile([True, False, False, True], 100), np.tile([False, True, False, False], 100)
    of[people_of >= 50] = False  # the test faces are of the first 50 people
    near = near_identity_matches(embeddings, real, among, of)
    assert not near[~(real & among)].any()
    assert near[real & among & (people_of < 50)].mean() > 0.9
    assert near[real & among & (people_of >= 50)].mean() < 0.2
    assert not near_identity_matches(embeddings, real, among, np.zeros(400, bool)).any()


def test_the_largest_share_betrays_chaining():
    assert largest_share(["a", "b", "a", "a"]) == pytest.approx(0.75)


def faces_of(splits):
    rows = {
        column: np.array(["x"] * len(splits), dtype=object)
        for column in ("dataset", "path", "face")
    }
    return FeatureDataset(
        {}, {**rows, "split": np.array(splits, dtype=object), "label": np.zeros(len(splits), int)}
    )


def test_a_group_is_on_the_last_side_that_it_was_given_to_and_its_other_faces_are_left_out():
    given = ["train", "val", "test", "train", "val", "train", ""]
    groups = ["tested", "tested", "tested", "validates", "validates", "trains", "trains"]
    faces = faces_of(given + ["train"] * 200)
    apart = grouped_split(faces, groups + [f"person {i}" for i in range(200)])
    assert apart.rows["split"][:7].tolist() == ["", "", "test", "", "val", "train", ""]
    assert set(apart.rows["split"][7:]) == {"train"} and faces.rows["split"][:7].tolist() == given


def test_a_large_crowd_that_cannot_be_told_apart_never_tests():
    given = ["train", "val", "test", "test"] * 25 + ["test"] * 100
    splits = grouped_split(
        faces_of(given), ["crowd"] * 100 + [f"person {i}" for i in range(100)]
    ).rows["split"]
    assert splits[:4].tolist() == ["train", "", "", ""] and set(splits[100:]) == {"test"}
