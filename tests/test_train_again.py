"""train.py into a folder that is there already, and with numbers out of range."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import train
from command_line import BAD_INPUT, run
from data.dump import read_dump
from models.checkpoint import Checkpoint
from tests.synthetic import recurring_people, write_dump
from train import Config, main

RAW = ("toy.identity/cos",)


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    return write_dump(tmp_path_factory.mktemp("again") / "made" / "toy")


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_same_command_again_gives_the_same_files_and_others_need_overwrite(dump, tmp_path):
    config = Config(features=(dump,), only=RAW, out=tmp_path / "mine")
    before = content(main(config))
    assert content(main(config)) == before
    other = write_dump(tmp_path / "other" / "toy", seed=3)
    for change, told in (
        ({"head": "mlp"}, "other head"),
        ({"drop": ("kl",)}, "other groups_dropped"),
        ({"fpr": 0.1}, "other threshold"),
        ({"seed": 1}, "other seed"),
        ({"features": (other,)}, "other dumps"),
        ({"one_class": True}, "other head"),
        ({"identity_disjoint": True, "forgery_weight": 0}, "forgery_weight, other identity_"),
    ):
        with pytest.raises(ValueError, match=rf"mine: holds another detector \(.*{told}.*--overwr"):
            main(replace(config, **change))
        assert content(config.out) == before
    main(replace(config, seed=1, overwrite=True))
    after = content(config.out)
    assert json.loads(after["metrics.json"])["config"]["seed"] == 1 and len(after) == len(before)
    (config.out / "checkpoint.json").write_text("{ damaged")
    with pytest.raises(ValueError, match="not JSON.*--overwrite"):
        main(config)
    assert content(main(replace(config, overwrite=True))) == before


def test_a_dump_made_anew_needs_overwrite_and_is_told(tmp_path):
    dump = write_dump(tmp_path / "made" / "toy")
    meta = json.loads((dump / "meta.json").read_text())
    for samples in ("ab" * 32, "cd" * 32):
        config = {"samples": samples, "precision": "float32"}
        (dump / "meta.json").write_text(json.dumps(meta | {"config": config}))
        config = Config(features=(dump,), only=RAW, out=tmp_path / "mine")
        if samples.startswith("ab"):
            checkpoint = Checkpoint.load(main(config))
            now = read_dump(dump)
            assert checkpoint.warning_for(now.meta, now.digest) == ""
            assert "was made anew" in checkpoint.warning_for(now.meta, "cd" * 32)
            continue
        with pytest.raises(ValueError, match="other dumps"):
            main(config)


@pytest.mark.parametrize("which", ["BUNDLED", "LITE"])
def test_a_bundled_detector_is_replaced_on_request_only(dump, tmp_path, monkeypatch, which):
    bundled = tmp_path / "checkpoints" / "default"
    shutil.copytree(getattr(train, which), bundled)
    monkeypatch.setattr(train, which, bundled)
    monkeypatch.chdir(tmp_path)
    before = content(bundled)
    for place in ({"name": "default"}, {"out": Path("checkpoints/../checkpoints/default")}):
        with pytest.raises(ValueError, match="holds another detector .the bundled one"):
            main(Config(features=(dump,), only=RAW, **place))
    assert content(bundled) == before
    config = Config(features=(dump,), only=RAW, name="default", overwrite=True)
    main(config)
    with pytest.raises(ValueError, match=r"\(the bundled one\)"):
        main(replace(config, overwrite=False))


def test_a_dataset_or_a_dump_is_no_place_for_a_detector(dump, tmp_path):
    folders = [tmp_path / name for name in ("plain", "split", "indexed", "begun", "empty")]
    for folder, inside in zip(
        folders, ("fake", "train/real", "index.csv/x", "unfinished", "."), strict=True
    ):
        (folder / inside).mkdir(parents=True)
    mine = write_dump(tmp_path / "made" / "toy")
    meta = json.loads((mine / "meta.json").read_text())
    (mine / "meta.json").write_text(json.dumps(meta | {"data_root": str(folders[-1])}))
    for out in (*folders, mine, dump):
        before = sorted(out.rglob("*"))
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="a dataset or a dump; choose another --out"):
                main(Config(features=(mine,), only=RAW, out=out, overwrite=overwrite))
        assert sorted(out.rglob("*")) == before


def test_metrics_and_splits_name_their_detector(tmp_path):
    people, arrays = recurring_people()
    dump = write_dump(tmp_path / "made" / "toy", groups=100, change=arrays)
    config = Config(features=(dump,), only=RAW, identity_disjoint=True, out=tmp_path / "out")
    out = main(config)
    assert (out / "splits.csv").is_file()
    main(replace(config, identity_disjoint=False, overwrite=True))
    assert not (out / "splits.csv").is_file(), "of another run"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["checkpoint_sha256"] == Checkpoint.load(out).sha256


def test_a_place_that_cannot_be_written_is_told_before_training(dump, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=f"{out}: .*file is no folder that can be written"):
            main(Config(features=(dump,), out=out))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="no folder that can be written; choose another --out"):
        main(Config(features=(dump,), out=tmp_path / "new"))


@pytest.mark.parametrize("option", ["--fpr", "--forgery-weight"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e309"])
def test_numbers_out_of_range_are_refused(capsys, option, value):
    assert run(main, Config, "", [f"{option}={value}"], "train.py") == BAD_INPUT
    assert f"train.py: {option}" in capsys.readouterr().err


@pytest.mark.parametrize("fpr", [1e-300, 0.999999])
def test_extreme_rates_give_a_usable_threshold(dump, tmp_path, fpr):
    out = main(Config(features=(dump,), only=RAW, fpr=fpr, out=tmp_path / "out"))
    assert 0 < Checkpoint.load(out).info["threshold"]["p_fake"] <= 1
