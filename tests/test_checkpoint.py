"""What is written is read back; whatever kills a writer or changes a file, no other verdict comes of it."""

import json
import os
import shutil
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from features.columns import forgery_logit_columns
from features.regions import REGIONS
from inference.scorer import Scorer
from models import BUNDLED as OWN_WEIGHTS
from models import checkpoint as module
from models.checkpoint import (
    BUNDLED,
    FORMAT,
    INFO,
    LITE,
    METRICS,
    SPLITS,
    Checkpoint,
    newest_checkpoint,
)
from training import detector as detector_module

FEATURES = ["toy.age/diff/full~upper", "toy.age/diff/full~lower"]
FACE = {"toy.age": np.arange(8, dtype=np.float32).reshape(1, 8, 1)}
COUNTS = {"real": 1, "fake": 1, "groups": 2}


def detector(coef: float = 1.0) -> Checkpoint:
    """A small detector of two columns."""
    info = {
        "outputs": {"toy.age": {"kind": "scalar", "size": 1, "names": []}},
        "features": FEATURES,
        "head": "logreg",
        "forgery_weight": 0.5,
        "calibration": {"a": 1.5, "b": -0.25, "how": "Plätt", "on": "validation split"},
        "threshold": {"p_fake": 0.7, "fpr": 0.05},
        "reference": {"percentiles": [5, 50, 95], "faces": 4},
        "limits": {"yaw": 40.0},
        "profile": "toy",
        "regions": list(REGIONS),
        "weights": {"toy": "0" * 64},
        "precision": "float32",
        "groups_dropped": [],
        "groups_only": [],
        "trained_on": [{"dataset": "made", "counts": {"train": COUNTS, "val": COUNTS}}],
        "seed": 0,
        "identity_disjoint": False,
        "versions": {"python": "3"},
        "dumps": [{"dataset": "made", "profile": "toy", "condition": "", "digest": "ab"}],
    }
    arrays = {
        "reference": np.array([[0, 3], [1, 4], [2, 5]], np.float32),
        "real_scores": np.array([0.1, 0.2, 0.3, 0.9]),
        "disagreement": np.zeros((3, 7), np.float32),
        "head.median": np.zeros(2, np.float32),
        "head.mean": np.arange(4, dtype=np.float32)[::2],
        "head.scale": np.ones(2, np.float32),
        "head.forgery_weight": np.zeros(2, np.float32),
        "head.model.coef": np.full(2, float(coef)),
        "head.model.bias": np.array(0.5),
    }
    return Checkpoint(info, arrays)


def p_fake(folder) -> float:
    return Scorer(Checkpoint.load(folder)).score(FACE)[1][0]


def test_round_trip_keeps_values_types_and_other_files(tmp_path):
    (tmp_path / "README.md").write_text("a card")
    made = detector()
    made.save(tmp_path)
    again = Checkpoint.load(tmp_path)
    assert again.info == made.info and set(again.arrays) == set(made.arrays)
    for name, value in made.arrays.items():
        assert np.array_equal(again.arrays[name], value) and again.arrays[name].dtype == value.dtype
    numbers = module._arrays_of(json.loads((tmp_path / INFO).read_text()))
    assert {file.name for file in tmp_path.iterdir()} == {"README.md", INFO, numbers}


def test_the_same_detector_gives_the_same_bytes(tmp_path):
    one, other = (detector().save(tmp_path / name) for name in "ab")
    assert {file.name for file in one.iterdir()} == {file.name for file in other.iterdir()}
    assert all(file.read_bytes() == (other / file.name).read_bytes() for file in one.iterdir())


def test_arrays_of_another_detector_are_refused(tmp_path):
    one, other = detector(1).save(tmp_path / "a"), detector(2).save(tmp_path / "b")
    (mine,), (theirs,) = one.glob("arrays*"), other.glob("arrays*")
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(ValueError, match=f"{mine.name}: damaged, or does not belong"):
        Checkpoint.load(one)
    mine.unlink()
    with pytest.raises(FileNotFoundError, match=f"{mine.name}: missing"):
        Checkpoint.load(one)


def test_other_files_are_refused_with_a_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match="make one with train.py"):
        Checkpoint.load(tmp_path)
    description = tmp_path / INFO
    for text in ("{ not JSON", "", "\xff", "[" * 100_000, '{"a":' * 100_000, "9" * 5000):
        description.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=f"{INFO}: (not JSON|of format)"):
            Checkpoint.load(tmp_path)
    for stranger in ({"format": FORMAT - 1}, {"format": True}, [], {}, None):
        description.write_text(json.dumps(stranger))
        with pytest.raises(ValueError, match="of format"):
            Checkpoint.load(tmp_path)


def test_a_value_changed_by_hand_is_refused_but_not_its_layout(tmp_path):
    folder = detector().save(tmp_path / "mine")
    before, text = p_fake(folder), (folder / INFO).read_text()
    (folder / INFO).write_text(json.dumps(json.loads(text)))
    assert p_fake(folder) == before
    for old, new in (("0.7", "0.9"), ("0.05", "0.06"), ("Pl", "pl"), ('"seed": 0', '"seed": 1')):
        assert old in text
        (folder / INFO).write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=f"{INFO}: changed since it was written"):
            Checkpoint.load(folder)


def steps(made: Checkpoint, folder) -> None:
    """What train.py does, in a process of its own that ends after step `stop`."""
    with made.saving(folder):
        (folder / METRICS).write_text(json.dumps({"checkpoint_sha256": made.sha256}))
        (folder / SPLITS).write_text(made.sha256)


def test_a_writer_may_die_at_any_step(tmp_path):
    """Killed before each file that it opens, renames or removes: the old or the new one is whole."""
    old, new, seen = detector(1), detector(2), set()
    scores = {}
    for made in (old, new):
        scores[p_fake(made.save(tmp_path / "alone"))] = made.sha256
    for step in range(100):
        folder = tmp_path / f"{step}"
        steps(old, folder)
        if not (pid := os.fork()):
            count = iter(range(1000))

            def kill(event, arguments, count=count, step=step):
                touched = event in ("os.rename", "os.remove") or event == "open"
                if touched and next(count) == step:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(kill)
            steps(new, folder)
            os._exit(0)
        ended = os.waitpid(pid, 0)[1]
        found = p_fake(folder)
        seen.add(found)
        for name in (METRICS, SPLITS):
            text = (folder / name).read_text() if (folder / name).exists() else ""
            assert text == "" or scores[found] in text, "figures of another run"
        steps(new, folder)
        assert scores[p_fake(folder)] == new.sha256
        assert len(list(folder.iterdir())) == 4, "what was left is gone"
        if not ended:
            break
    assert not ended and step > 5 and seen == set(scores), "killed at every step, seen both"


def test_on_a_full_disk_the_old_detector_stays_with_its_figures(tmp_path, monkeypatch):
    """Full after so many bytes, wherever in the two files that is."""
    old, new = detector(1), detector(2)
    steps(old, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    @contextmanager
    def full(path):
        with Path("/dev/full").open("wb") as file:
            yield file
            file.flush()

    for name in ("arrays", INFO):
        real = module.replacing
        monkeypatch.setattr(
            module, "replacing", lambda p, n=name, r=real: (full if n in p.name else r)(p)
        )
        with pytest.raises(OSError, match="No space left"):
            steps(new, tmp_path)
        monkeypatch.undo()
        assert before.items() <= {x.name: x.read_bytes() for x in tmp_path.iterdir()}.items()
        assert p_fake(tmp_path) == p_fake(old.save(tmp_path / "alone"))
        shutil.rmtree(tmp_path / "alone")
    steps(new, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_two_writers_and_a_reader_at_once(tmp_path):
    made = [detector(coef) for coef in (1, 2, 3)]
    scores = {p_fake(each.save(tmp_path / "alone")): each.sha256 for each in made}
    folder, found, errors = made[0].save(tmp_path / "shared"), set(), []

    def write(each):
        for _ in range(20):
            steps(each, folder)

    writers = [threading.Thread(target=write, args=(each,)) for each in made[1:]]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        try:
            found.add(p_fake(folder))
        except (OSError, ValueError) as error:
            errors.append(error)
    assert not errors and found <= set(scores)
    last = scores[p_fake(folder)]
    assert last in (folder / METRICS).read_text() and last == (folder / SPLITS).read_text()
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("which", [INFO, "arrays*"])
def test_changed_bytes_change_no_score_in_silence(tmp_path, which):
    rng, folder = np.random.default_rng(0), detector().save(tmp_path / "mine")
    (file,) = folder.glob(which)
    before, whole, refused = p_fake(folder), file.read_bytes(), 0
    for _ in range(1500):
        content, place = bytearray(whole), int(rng.integers(len(whole)))
        kind = rng.integers(4)
        if kind == 0:
            content[place] = rng.integers(256)
        elif kind == 1:
            del content[place : place + int(rng.integers(1, 20))]
        elif kind == 2:
            content[place:place] = rng.choice([b"0", b"9", b"-", b'"', b"e3", b"NaN", b",", b"[{"])
        else:
            content = content[:place]
        file.write_bytes(content)
        try:
            assert p_fake(folder) == before
        except (FileNotFoundError, ValueError) as error:
            assert str(folder) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 1000


def test_numbers_that_json_does_not_know_are_refused(tmp_path):
    made = detector()
    made.info["forgery_weight"] = float("nan")
    with pytest.raises(ValueError, match="forgery_weight: expected a number from 0"):
        made.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_newest_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python train\.py"):
        newest_checkpoint(tmp_path)
    for age, name in enumerate("bca"):
        detector().save(tmp_path / name)
        os.utime(tmp_path / name / INFO, (1000 - age, 1000 - age))
    assert newest_checkpoint(tmp_path) == tmp_path / "b"
    bundled = BUNDLED.parent
    assert newest_checkpoint(bundled) == bundled / "default", "whatever times a checkout gave them"


def test_a_dump_made_anew_is_told():
    meta, made = {"dataset": "made", "profile": "toy", "config": {}}, detector()
    assert "the dump of made was made anew" in made.warning_for(meta, "cd")
    for other in ({"dataset": "x"}, {"profile": "lite"}, {"config": {"degrade": "jpeg-30"}}):
        assert made.warning_for(meta | other, "cd") == "", "nothing is known of that dump"
    assert made.warning_for(meta, "ab") == ""
    assert Checkpoint.load(BUNDLED).warning_for(meta | {"dataset": "dfdc"}, "cd") == ""


@pytest.mark.parametrize("folder", [BUNDLED, LITE])
def test_the_figures_of_a_bundled_detector_are_its_own(folder):
    found, metrics = Checkpoint.load(folder), json.loads((folder / METRICS).read_text())
    assert metrics["checkpoint_sha256"] == found.sha256
    weights = dict(zip(found.info["features"], found.arrays["head.forgery_weight"], strict=True))
    added = forgery_logit_columns(list(weights), found.info["outputs"])
    assert (
        (np.array([*weights.values()]) > 0) == (added & (found.info["forgery_weight"] > 0))
    ).all()


def test_the_two_logits_of_the_default_have_weights_of_their_own():
    """In deviations among real faces, so each by its scale: six times as much is seen in both."""
    found = Checkpoint.load(BUNDLED)
    values = dict(zip(found.info["features"], found.arrays["head.forgery_weight"], strict=True))
    ratio = values["clip.made/level/full"] / values["traces.altered/level/full"]
    assert found.info["appearance_weight"] / found.info["forgery_weight"] == 6 and ratio > 3


def test_the_weight_of_a_logit_is_that_of_its_family(monkeypatch):
    outputs = {x: {"kind": "forgery_logit"} for x in ("traces.altered", "clip.made")}
    names = [f"{x}/level/{region}" for x in outputs for region in ("full", "inner")]
    monkeypatch.setattr(detector_module, "fit_head", lambda *args: args[-1])
    pipeline = SimpleNamespace(names=names, outputs=outputs)
    settings = detector_module.Settings(forgery_weight=0.25, appearance_weight=4)
    weight = detector_module.head_on(pipeline, settings, (0, 0, 0), (0, 0))
    assert weight.tolist() == [0.25, 0, 4, 0]
    old = detector_module.weights_of({"forgery_weight": 0.25})
    assert old == {"forgery_weight": 0.25, "appearance_weight": 0.25}


def test_the_bundled_lite_needs_bundled_weights_alone():
    assert Checkpoint.load(LITE).info["weights"].keys() <= OWN_WEIGHTS.keys()
