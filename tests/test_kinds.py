"""What is found of methods and datasets that were left out: protocol, figures, section, study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.datasets import find_samples
from data.dump import read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from evaluate import main
from evaluation.metrics import auc
from evaluation.metrics_table import pick, read_metrics
from evaluation.predictions import of_test, read_predictions
from evaluation.protocols import DATASET, SOURCE, VALIDATION, left_out
from evaluation.run import Progress
from evaluation.systems import for_left_out
from scripts import study
from tests.synthetic import OUTPUTS, predictions, write_dump
from training.detector import Settings

GROUPS = 40
PERSON = np.repeat(np.arange(GROUPS), 4)
FAKE, SOURCE_OF = np.tile([0, 0, 1, 1], GROUPS) == 1, PERSON // 10
NAMES = np.array(["swap: A", "swap: B", "edit: D", "edit: E"])
METHOD = np.where((SOURCE_OF == 1) & (PERSON % 2 == 0), "edit: C", NAMES[SOURCE_OF])
CHANGE = {
    "method": np.where(FAKE, METHOD, ""),
    "group": np.array([f"repo{i}" for i in SOURCE_OF]),
    "split": np.array(["train", "train", "val", "test"])[SOURCE_OF],
    **predictions(PERSON, FAKE, noise=1.5),
}


@pytest.fixture(scope="module", autouse=True)
def no_plots() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.report.Pictures.of_section", lambda *_: ())
        yield


@pytest.fixture(scope="module")
def dumps(tmp_path_factory) -> list[str]:
    """modern: five methods of four repositories; old: fakes without a method; reals: never train."""
    root = tmp_path_factory.mktemp("dumps")
    made = [write_dump(root / "modern" / "toy", GROUPS, change=CHANGE)]
    made += [write_dump(root / "old" / "toy", 50, seed=1)]
    made += [write_dump(root / "reals" / "toy", 20, seed=2, splits=(0, 0), label=0)]
    return [*map(str, made)]


@pytest.fixture(scope="module")
def faces(dumps) -> FeatureDataset:
    return join_dumps([read_dump(path) for path in dumps])


@pytest.fixture(scope="module")
def command(dumps, tmp_path_factory) -> list[str]:
    options = ["--drop", "expected", "--forgery-weight", "0", "--replicates", "20"]
    options += ["--out", str(tmp_path_factory.mktemp("kinds") / "report"), "--no-few-shot"]
    options += ["--features", *dumps, "--no-checkpoint", "--permutations", "0"]
    command = [*options, "--protocols", "left-out", "--ablate", "none"]
    assert main(command) == 0
    return command


@pytest.fixture(scope="module")
def folder(command) -> Path:
    return Path(command[command.index("--out") + 1])


@pytest.fixture(scope="module")
def table(folder) -> pd.DataFrame:
    return read_metrics(folder / "metrics.csv")


def test_every_source_and_every_dataset_that_trains_is_left_out(faces):
    found = {experiment.excluded: experiment for experiment in left_out(faces)}
    sources = [f"modern/repo{i}" for i in range(4)]
    assert list(found) == [*sources, "modern", "old"]
    for name, experiment in found.items():
        (run,) = experiment.runs
        assert run.protocol == (SOURCE if "/" in name else DATASET)
        for part in (experiment.train, experiment.val):
            assert name not in {*part.rows["group"], *part.rows["dataset"]}
            assert "reals" not in part.rows["dataset"]
    assert list(found["modern/repo1"].runs[0].tests) == ["edit: C", "swap: B", VALIDATION]
    tests = found["modern"].runs[0].tests
    assert {*tests} == {*np.unique(METHOD), "modern", "reals", VALIDATION}
    assert {*found["old"].runs[0].tests} == {"old", "reals", VALIDATION}


def test_fakes_meet_real_faces_that_did_not_train(faces):
    for experiment in left_out(faces):
        (run,) = experiment.runs
        seen = {*zip(*(experiment.train.rows[x] for x in ("dataset", "path")), strict=True)}
        for name, test in run.tests.items():
            assert not seen & {*zip(test.rows["dataset"], test.rows["path"], strict=True)}, name
    part = next(x for x in left_out(faces) if x.excluded == "modern/repo0").runs[0].tests["swap: A"]
    real = part.rows["label"] == 0
    assert {*part.rows["group"][real]} == {"modern/repo0", "modern/repo3"}
    assert {*part.rows["group"][~real]} == {"modern/repo0"}


def test_experts_trained_without_it_are_seen(faces):
    """Of a dataset, and of its sources."""
    name = next(iter(faces.arrays))
    versions = {f"{name}~modern": faces.arrays[name] + np.float16(1)}
    found = {x.excluded: x for x in left_out(replace(faces, versions=versions))}
    for plain in left_out(faces):
        change, other = np.float16(plain.excluded != "old"), found[plain.excluded]
        tests = plain.runs[0].tests
        parts = [(plain.train, other.train), (plain.val, other.val)]
        parts += [(tests[test], other.runs[0].tests[test]) for test in tests]
        for before, after in parts:
            assert (after.arrays[name] == before.arrays[name] + change).all(), plain.excluded


def test_methods_that_share_groups_are_no_sources(faces):
    old = faces.select(faces.rows["dataset"] == "old")
    mixed = np.where(old.rows["label"] == 1, np.resize(["x", "y"], len(old)), "")
    assert left_out(FeatureDataset(old.arrays, {**old.rows, "method": mixed})) == []


def test_a_mean_counts_every_method_alike(table):
    rows = pick(table, metric="auc", system="MASC", protocol=SOURCE).set_index("test")
    of = rows.drop(["mean of 2", "mean of 3", "mean of 5"])["value"]
    assert of.index.tolist() == ["swap: A", "edit: C", "swap: B", "edit: D", "edit: E"]
    assert rows.loc["mean of 2", "value"] == pytest.approx(of[["swap: A", "swap: B"]].mean())
    assert rows.loc["mean of 5", "value"] == pytest.approx(of.mean())
    assert rows.loc["mean of 5", "group"] == "all" and of.mean() > 0.8
    every = rows.loc["mean of 5"]
    assert every["low"] < every["value"] < every["high"]
    assert (every["n_fake"], every["n"]) == (80, 160), "no face counts twice"


def test_figures_follow_from_the_predictions(folder, table):
    progress = Progress(folder, **json.loads((folder / "progress.json").read_text()))
    found = of_test(read_predictions(folder / "predictions/left-out-old/masc.csv"), "old")
    threshold = progress.done["without all of old/MASC"]["threshold"]
    fake, p_fake = found["label"].to_numpy() == 1, found["p_fake"].to_numpy()
    rows = pick(table, run="left-out-old", system="MASC", test="old").set_index("metric")["value"]
    assert rows["auc"] == pytest.approx(auc(fake.astype(int), p_fake))
    assert rows["called_fake"] == pytest.approx((p_fake[fake] >= threshold).mean())
    assert rows["false_alarms"] == pytest.approx((p_fake[~fake] >= threshold).mean())
    assert 0 <= rows["nothing_found"] < rows["cleared"], (
        "chosen on others, where it meant something"
    )
    reals = pick(table, test="reals", system="MASC", metric="false_alarms")
    assert reals["note"].tolist() == ["modern", "old"] and (reals["n"] == 40).all()


def test_the_section_shows_every_system(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    section = text.partition("By kind of fake")[2].partition("\n## ")[0]
    head = next(line for line in section.splitlines() if line.startswith("| left out"))
    for column in ("kind", "tested on", "real + fake", "MASC", "metadata", "consistency alone"):
        assert f" {column} " in head
    lines = [line for line in section.splitlines() if line.startswith("| its source, each")]
    assert [line.split("|")[2].strip() for line in lines[:3]] == ["edit", "swap", "all"]
    assert any(
        line.startswith("| modern/repo1 | edit | C | 40 + 10") for line in section.split("\n")
    )


def test_a_second_start_fits_nothing(command, folder, monkeypatch):
    before = (folder / "metrics.csv").read_bytes()
    monkeypatch.setattr("evaluation.run._fit", lambda *_: pytest.fail("fitted again"))
    assert main(command) == 0
    assert (folder / "metrics.csv").read_bytes() == before


def test_what_clip_sees_is_compared_where_the_dumps_have_it():
    clip = {
        "clip.embedding": {"kind": "embedding", "size": 8, "names": []},
        "clip.made": {"kind": "forgery_logit", "size": 1, "names": []},
    }
    plain = [system.name for system in for_left_out(OUTPUTS, Settings())]
    assert plain == ["metadata", "consistency alone"]
    names = {system.name for system in for_left_out({**OUTPUTS, **clip}, Settings())}
    assert names == {*plain, "clip.embedding, whole face", "clip.made alone"}


def written(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_an_index_of_the_study(tmp_path: Path):
    """Groups are repositories; paths go through a link; half of the people of highres train."""
    modern, highres = tmp_path / "modern", tmp_path / "faces" / "highres"
    people = [f"faces/highres/{x}.jpg,{y}" for x, y in zip("cdef", ("", "p", "p", ""), strict=True)]
    for path in (
        modern / "fake/a.png",
        modern / "real/b.png",
        *(highres / f"{x}.jpg" for x in "cdef"),
    ):
        written(path)
    lines = ["fake/a.png,fake,SimSwap,neuralchen/SimSwap", "real/b.png,real,,serengil/deepface"]
    written(modern / "index.csv", "path,label,method,repository", *lines)
    wrong = f"faces/highres/g.jpg,,{study.MISLABELLED}"
    people = [f"{row},a source" for row in people] + [wrong]
    written(highres / "index.csv", "path,identity,source", *people)
    for _ in range(2):
        roots = [study.options_of(x, tmp_path, tmp_path / "sets")[1] for x in ("modern", "highres")]
    a, b = find_samples(Path(roots[0]))
    assert (a.path, a.group, a.method) == (
        "pictures/fake/a.png",
        "neuralchen/SimSwap",
        "swap: SimSwap",
    )
    assert [x.split for x in (a, b)] == ["train", "test"]
    assert len(find_samples(Path(roots[1]))) == 4, "without those that are mislabelled"
    splits = [x.split for x in find_samples(Path(roots[1]))]
    assert splits[1] == splits[2] and len({*splits}) > 1
    written(modern / "index.csv", "path,label,method,repository", "fake/a.png,fake,New,x/y")
    with pytest.raises(ValueError, match="of which kind is 'New'"):
        study.options_of("modern", tmp_path, tmp_path / "sets")


def test_the_study_goes_without_what_is_missing(tmp_path: Path, monkeypatch, caplog):
    (tmp_path / "stylegan").mkdir()
    ran = []
    monkeypatch.setattr(study, "python", lambda *arguments: ran.append(arguments) or 3)
    with caplog.at_level("WARNING", "masc"):
        assert study.main(study.Config(tmp_path)) == 3
    (command,) = ran
    assert command[0] == "preprocessing_pipeline.py" and str(tmp_path / "stylegan") in command
    missing = [record.message.partition(":")[0] for record in caplog.records]
    assert missing == [
        str(tmp_path / x) for x in ("dfdc", "openforensics", "modern", "faces/highres")
    ]
    with pytest.raises(FileNotFoundError, match="none of"):
        study.main(study.Config(tmp_path / "stylegan"))
