"""A finished dump gets one more expert, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from data.extend import Extension

from data import extend
from data.cutting import CHANGED
from data.store import NO_FACE, Dump, read_dump
from models.region_net import RegionExpert
from preprocessing_pipeline import Config, cli, main


@pytest.fixture(scope="module")
def weights(official_weights, tmp_path_factory) -> Path:
    """The files of two experts, the bundled one among them."""
    from models import BUNDLED
    from models.weights import WEIGHTS

    folder = tmp_path_factory.mktemp("weights")
    for file in (BUNDLED["lite"], official_weights / WEIGHTS["fairface"].file):
        (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, astronaut) -> Path:
    root = tmp_path_factory.mktemp("data") / "faces"
    for label in ("real", "fake"):
        (root / label).mkdir(parents=True)
        for i in range(3):
            crop = astronaut[5 * i : 5 * i + 240, 60 + 7 * i : 300 + 7 * i]
            cv2.imwrite(str(root / label / f"{i}.jpg"), crop[..., ::-1])
    cv2.imwrite(str(root / "fake" / "stripes.png"), np.tile(np.uint8([0, 90, 200]), (64, 64, 1)))
    return root


def configured(dataset: Path, weights: Path, out: Path, *experts: str, **options) -> Config:
    more = {"batch_size": 2, "shard_size": 2, "device": "cpu", **options}
    return Config(dataset, out, experts=experts, weights_dir=weights, **more)


@pytest.fixture(scope="module")
def lite(dataset, weights, tmp_path_factory) -> Path:
    return main(configured(dataset, weights, tmp_path_factory.mktemp("lite") / "dump", "lite"))


@pytest.fixture(scope="module")
def extended(dataset, weights, lite, tmp_path_factory) -> Path:
    out = shutil.copytree(lite, tmp_path_factory.mktemp("extended") / "dump")
    return main(configured(dataset, weights, out, "fairface", extend=True))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_it_is_as_if_both_had_been_asked_at_once(dataset, weights, lite, extended, tmp_path):
    at_once, one_by_one = (
        read_dump(main(configured(dataset, weights, tmp_path, "fairface", "lite"))),
        read_dump(extended),
    )
    assert at_once.keys == one_by_one.keys and len(at_once) == 6
    assert list(at_once.meta["outputs"]) == list(one_by_one.meta["outputs"])
    for what in ("weights", "outputs", "profile", "config"):
        assert at_once.meta[what] == one_by_one.meta[what], what
    for name, array in at_once.arrays.items():
        assert np.allclose(
            array.astype(np.float32), one_by_one.arrays[name], atol=2e-3, rtol=2e-3
        ), name
    assert one_by_one.failures == [("fake/stripes.png", NO_FACE)] and one_by_one.missing == []
    before, after = contents(lite), contents(extended)
    assert {name for name in before if before[name] != after[name]} == {
        "meta.json"
    }  # the other answers are untouched
    assert set(after) - set(before) == {
        f"fairface.{name}.npy" for name in ("age", "gender", "race")
    }


def test_only_the_new_expert_is_asked(dataset, weights, lite, tmp_path, monkeypatch):
    monkeypatch.setattr(RegionExpert, "forward", lambda *_: pytest.fail("asked again"))
    out = shutil.copytree(lite, tmp_path / "dump")
    main(configured(dataset, weights, out, "lite", "fairface", extend=True))
    assert set(read_dump(out).meta["weights"]) == {"lite", "fairface"}


def test_stopped_midway_the_dump_is_still_whole_and_the_same_command_goes_on(
    dataset, weights, lite, extended, tmp_path, monkeypatch, capsys
):
    out = shutil.copytree(lite, tmp_path / "dump")
    arguments = [
        "--data_root",
        str(dataset),
        "--out",
        str(out),
        "--weights-dir",
        str(weights),
        "--device",
        "cpu",
    ]
    arguments += ["--batch-size", "2", "--shard-size", "2", "--experts", "fairface", "--extend"]
    write_shard = Extension.write_shard

    def stop_at_the_second(self: Extension, number: int, *rest: object) -> None:
        if number == 1:
            raise KeyboardInterrupt
        write_shard(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Extension, "write_shard", stop_at_the_second)
        assert cli(arguments) == 130
    assert set(read_dump(out).meta["weights"]) == {"lite"}
    with pytest.raises(ValueError, match="is being extended with other settings"):
        Extension(read_dump(out), {}, {"weights": "others"})
    capsys.readouterr()
    assert cli(arguments) == 0
    assert "2 of 6 images are done" in capsys.readouterr().out
    assert contents(out) == contents(extended)
    assert cli(arguments) == 0
    assert "has these experts already: lite, fairface" in capsys.readouterr().out


def test_another_dataset_under_the_same_names_adds_nothing(dataset, weights, lite, tmp_path):
    root, out = (
        shutil.copytree(dataset, tmp_path / "faces"),
        shutil.copytree(lite, tmp_path / "dump"),
    )
    for path in root.glob("*/*.jpg"):
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(
        ValueError, match="not extended, 6 of 6 faces have no usable picture any more"
    ):
        main(configured(root, weights, out, "fairface", extend=True))
    assert set(read_dump(out).meta["weights"]) == {"lite"}


def test_a_dump_that_changed_meanwhile_is_not_extended(lite, tmp_path):
    dump = read_dump(shutil.copytree(lite, tmp_path / "dump"))
    (dump.path / "meta.json").write_text(json.dumps({**dump.meta, "versions": {}}))
    with pytest.raises(ValueError, match="was changed meanwhile by another process"):
        Extension(dump, {}, {})


def test_nobody_replaces_a_dump_that_is_being_extended(dataset, weights, lite, tmp_path):
    out = shutil.copytree(lite, tmp_path / "dump")
    with Extension(read_dump(out), {}, {"weights": {"other": "0"}}):
        with pytest.raises(ValueError, match="another process is writing this dump"):
            main(configured(dataset, weights, out, "lite", overwrite=True))
        assert read_dump(out).meta["weights"].keys() == {"lite"}
    main(configured(dataset, weights, out, "lite", overwrite=True))
    assert not (out / "extending").exists()


def extended_by_hand(dump: Dump, expert: str, **more: str) -> Dump:
    """With one number per face."""
    outputs = {f"{expert}.y": {"kind": "scalar", "size": 1, "names": []}}
    weights = dump.meta["weights"] | {expert: "0"}
    with Extension(dump, outputs, {"weights": weights, **more}, 100) as writer:
        for number, samples in writer.pending():
            rows = [row for sample in samples for row in writer.rows[sample.path]]
            writer.write_shard(number, rows, {f"{expert}.y": np.ones((len(rows), 8, 1))}, [])
        return writer.finish(
            {"outputs": dump.meta["outputs"] | outputs, "weights": weights, **more}
        )


def test_what_an_expert_was_built_with_is_a_setting_of_the_dump_as_if_made_at_once(lite, tmp_path):
    dump = extended_by_hand(
        read_dump(shutil.copytree(lite, tmp_path / "dump")), "clip", clip_model="ViT-L/14"
    )
    assert dump.meta["config"]["clip_model"] == dump.meta["clip_model"] == "ViT-L/14"
    assert dump.meta["config"]["weights"] == dump.meta["weights"]


def test_killed_while_it_tidied_up_it_is_no_obstacle(lite, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        dump = extended_by_hand(read_dump(shutil.copytree(lite, tmp_path / "dump")), "x")
    assert (dump.path / "extending" / "config.json").exists()
    assert extended_by_hand(dump, "z").meta["weights"].keys() == {"lite", "x", "z"}


def test_another_tower_beside_the_one_that_is_there_is_refused(dataset, weights, lite, tmp_path):
    dump = extended_by_hand(
        read_dump(shutil.copytree(lite, tmp_path / "dump")), "clip", clip_model="ViT-L/14"
    )
    with pytest.raises(ValueError, match="holds answers of CLIP ViT-L/14"):
        main(configured(dataset, weights, dump.path, "clip", extend=True))


def test_a_dump_keeps_the_precision_that_it_was_begun_with(dataset, weights, tmp_path):
    first = main(configured(dataset, weights, tmp_path / "dump", "lite", precision="bfloat16"))
    before = contents(first)
    assert main(configured(dataset, weights, first, "lite")) == first and contents(first) == before
    dump = read_dump(main(configured(dataset, weights, first, "fairface", extend=True)))
    assert dump.meta["config"]["precision"] == "bfloat16"


def test_a_picture_that_changed_or_went_costs_only_the_new_answers(
    dataset, weights, lite, extended, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(extend, "SPOILED", 0.5)
    root, out = (
        shutil.copytree(dataset, tmp_path / "faces"),
        shutil.copytree(lite, tmp_path / "dump"),
    )
    cv2.imwrite(str(root / "real" / "1.jpg"), cv2.imread(str(root / "real" / "1.jpg"))[:, ::-1])
    (root / "real" / "2.jpg").write_bytes(b"")
    dump = read_dump(main(configured(root, weights, out, "fairface", extend=True)))
    reasons = {(path, expert): reason for path, _, expert, reason in dump.missing}
    assert reasons == {
        ("real/1.jpg", "fairface"): CHANGED,
        ("real/2.jpg", "fairface"): "an empty file",
    }
    assert "2 faces have no answer of fairface" in capsys.readouterr().err
    lost = np.isin(dump.rows["path"], ["real/1.jpg", "real/2.jpg"])
    whole = read_dump(extended)
    for name, array in dump.arrays.items():
        assert (
            np.isnan(array).all((1, 2)).tolist()
            == (lost if name.startswith("fairface") else lost & False).tolist()
        )
        assert np.array_equal(array[~lost], whole.arrays[name][~lost])


def test_what_does_not_fit_is_refused(dataset, weights, lite, tmp_path):
    for options, message in (
        ({"faces": "all"}, "faces: 'one' there, 'all' now"),
        ({"precision": "bfloat16"}, "precision: 'float32' there, 'bfloat16' now"),
        ({"limit": 3}, "of its pictures are not in this dataset, such as"),
    ):
        with pytest.raises(ValueError, match=message):
            main(configured(dataset, weights, lite, "fairface", extend=True, **options))
    with pytest.raises(ValueError, match="(?s)weights: .* now.*--extend to add experts"):
        main(configured(dataset, weights, lite, "lite", "fairface"))
    with pytest.raises(FileNotFoundError, match="no dump there"):
        main(configured(dataset, weights, tmp_path / "nothing", "fairface", extend=True))
    dump = read_dump(shutil.copytree(lite, tmp_path / "dump"))
    with Extension(dump, {"x.y": {"kind": "scalar", "size": 1, "names": []}}, {}, 2) as writer:
        rows = [row for sample in writer.pending()[0][1] for row in writer.rows[sample.path]]
        with pytest.raises(ValueError, match="the faces are not those of"):
            writer.write_shard(0, rows[:1], {"x.y": np.zeros((1, 8, 1))}, [])
        with pytest.raises(ValueError, match="shards are missing"):
            writer.finish({})


def test_extending_and_replacing_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        cli(["--data_root", "x", "--extend", "--overwrite"])
    assert "give one of them" in capsys.readouterr().err
