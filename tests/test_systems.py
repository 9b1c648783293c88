"""Which systems are compared, and what they are fitted on: ablations, and pretrained forgery logits."""

from __future__ import annotations

import numpy as np
import pytest

from data.dump import read_dump
from data.feature_dataset import join_dumps
from evaluation import systems
from evaluation.metrics import auc
from evaluation.plan import Config, planned
from evaluation.systems import ABLATION, ENSEMBLE, MASC, ZERO_SHOT, System
from features.regions import REGIONS
from tests.synthetic import OUTPUTS, dumps_of, write_dump
from training.detector import Settings

LOGIT = {"kind": "forgery_logit", "size": 1, "names": ["logit"]}
FORGERY = {**OUTPUTS, "traces.altered": LOGIT}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp("dumps")
    return join_dumps(
        [read_dump(write_dump(root / name / "toy", 80, seed=i)) for i, name in enumerate("ab")]
    )


def forgery_faces(faces, logits):
    arrays = {**faces.arrays, "traces.altered": logits.astype(np.float16)}
    return type(faces)(arrays, faces.rows)


def test_the_forgery_logit_is_added_to_the_head_unless_its_weight_is_zero(faces):
    noise = np.random.default_rng(0).normal(size=(len(faces), 8, 1))  # unrelated to the labels
    seen = forgery_faces(faces, noise)
    settings = Settings(drop=("expected",))
    less = {each.name: each for each in systems.ablations(FORGERY, settings)}
    without = less[f"{MASC}, without the forgery logit"]
    reals = seen.select(np.flatnonzero((seen.rows["split"] == "test") & (seen.rows["label"] == 0)))
    logits = []
    for system in (systems.detector(MASC, ENSEMBLE, FORGERY, settings), without):
        p_fake = system.fit(seen.split("train"), seen.split("val")).p_fake(reals)
        logits.append(np.log(p_fake / (1 - p_fake)))
    added = np.polyfit(logits[1], logits[0], 1)[0] * logits[1] - logits[0]
    forgery = reals.arrays["traces.altered"][:, 0, 0].astype(float)
    assert np.corrcoef(added, forgery)[0, 1] < -0.9


def test_the_forgery_logit_alone_is_measured_zero_shot(faces):
    rng = np.random.default_rng(0)
    seen = forgery_faces(
        faces, faces.rows["label"][:, None, None] + rng.normal(0, 0.5, (len(faces), 8, 1))
    )
    name = "traces.altered, whole face (zero-shot)"
    made = systems.ablations(FORGERY, Settings(drop=("traces.altered",)))
    by_name = {each.name: each for each in made}
    train, val, test = (seen.split(split) for split in ("train", "val", "test"))
    train = train.select(np.flatnonzero(train.rows["label"] == 0))
    y, p_fake = test.rows["label"], by_name[name].fit(train, val).p_fake(test)
    assert auc(y, p_fake) == auc(y, test.arrays["traces.altered"][:, 0, 0].astype(float)) > 0.8
    assert name not in {each.name for each in systems.ablations(OUTPUTS, Settings())}
    config = Config(few_shot=False, permutations=0, protocols=("identity-disjoint",))
    jobs = planned(config, seen, dumps_of(FORGERY, "a"), None, None)
    zero_shot = {name, f"{MASC}, real faces only (zero-shot)"}
    for _, fitted in jobs:
        assert zero_shot == {each.name for each in fitted if each.kind in (ZERO_SHOT, ABLATION)}


def test_a_head_on_clip_is_measured_as_a_family_and_alone(faces):
    """It has seen labels, so that it is no zero-shot system by itself."""
    logits = faces.rows["label"][:, None, None] + np.zeros((len(faces), 8, 1))
    made = {"clip.made": logits.astype(np.float16)}
    seen = type(faces)({**forgery_faces(faces, logits).arrays, **made}, faces.rows)
    outputs = {**FORGERY, "clip.made": LOGIT}
    by_name = {x.name: x for x in systems.ablations(outputs, Settings(drop=("expected",)))}
    assert {x for x in by_name if "whole face" in x} == {
        "traces.altered, whole face (zero-shot)",
        "clip.made, whole face (pretrained)",
    }
    levels = {f"clip.made/level/{region}" for region in REGIONS}
    fits = {}
    for which in ("only", "without"):
        fitted = by_name[f"{MASC}, {which} appearance"].fit(seen.split("train"), seen.split("val"))
        fits[which] = set(fitted.checkpoint.info["features"])
    assert fits["only"] == levels and fits["without"] and not fits["without"] & levels


def test_permuted_labels_are_fitted_without_the_forgery_logit(faces, monkeypatch):
    def made(name, kind, outputs, settings):
        return System(name, f"{settings.forgery_weight} {settings.appearance_weight}", len)

    monkeypatch.setattr(systems, "detector", made)
    config = Config(few_shot=False, permutations=2, ablate="none", protocols=("given",))
    jobs = planned(config, faces, dumps_of(OUTPUTS, "a"), None, None)
    permuted = [(e.seed, [s.kind for s in fitted]) for e, fitted in jobs if e.seed is not None]
    assert permuted == [(0, ["0.0 0.0"]), (1, ["0.0 0.0"])] * 2
    assert {s.kind for _, fitted in jobs for s in fitted if s.name == MASC} == {"0.5 3.0"}


def test_a_detector_for_every_subset_of_the_families(faces):
    names = {"toy.age_years": "toy.blendshapes", "toy.moves": "toy.embedding"}
    outputs = {names.get(name, name): output for name, output in OUTPUTS.items()}
    made = [each.name for each in systems.ablations(outputs, Settings(), "subsets")]
    assert len(made) == 15 and made[0] == f"{MASC}, only attributes"
    assert made[-1] == f"{MASC}, only attributes + identities + vision_language + expressions"
    assert systems.usable_outputs(faces, OUTPUTS, ("expected",)) == list(OUTPUTS)
    left = systems.usable_outputs(faces, OUTPUTS, ("identities",))
    assert systems.families_of(left) == ("attributes",)
    missing = {**faces.arrays, "toy.identity": faces.arrays["toy.identity"] * np.nan}
    without = type(faces)(missing, faces.rows)
    assert "toy.identity" not in systems.usable_outputs(without, OUTPUTS, ())
    with pytest.raises(ValueError, match="no column of reference, attributes, identities"):
        systems.usable_outputs(faces, OUTPUTS, ("attributes", "identities"))
    with pytest.raises(ValueError, match="no feature belongs to clip"):
        systems.usable_outputs(faces, OUTPUTS, ("clip",))
