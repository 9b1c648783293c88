"""The visit to a machine with a GPU: nothing costs the other steps, and nothing is missing there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.throughput import one_by_one
from benchmarks.gpu.worker import NEEDS_CUDA, chosen, read_rows
from features.regions import REGIONS, Crop
from models.base import WholeFaceExpert
from scripts import gpu_pack, gpu_rehearsal, gpu_visit
from scripts.gpu_report import errors, report

ROOT = Path(__file__).parent.parent
EXPERTS = ["lite", "traces", "facenet"]


@pytest.fixture
def driver(tmp_path, monkeypatch) -> gpu_visit.Driver:
    """Of a plan whose steps fail in every way; nothing is made in the background."""
    monkeypatch.setattr(gpu_visit, "GRACE", 0.5)
    monkeypatch.setattr(gpu_visit.Driver, "prepare", lambda self: None)
    options = gpu_visit.arguments(["--out", str(tmp_path / "out"), "--only", "odd"])
    return gpu_visit.Driver(options, "tests.gpu_plan")


def test_a_step_costs_no_other_step(driver, tmp_path, capfd):
    assert driver.visit() == 1
    rows = {row["step"]: row for row in read_rows(tmp_path / "out" / "visit.json")}
    assert [row.removeprefix("odd.") for row in rows] == [
        *(
            "first",
            "fails",
            "cuda",
            "slow",
            "same",
            "deaf",
            "other",
            "dies",
            "breaks",
            "last",
            "end",
        )
    ]
    assert rows["odd.first"]["answer"] == 42 and rows["odd.first"]["s"] < 1
    errors = {step[4:]: row["error"] for step, row in rows.items() if "error" in row}
    assert errors.pop("fails") == "ValueError: no such thing" and errors.pop("cuda") == NEEDS_CUDA
    assert errors.pop("slow").startswith("TooLongError: over its limit")
    assert errors.pop("deaf").startswith("did not return; stopped after")
    assert errors.pop("dies") == "ended its process"
    assert errors.pop("breaks") == "RuntimeError: the device is gone" and not errors
    # A new process only where the last one was lost, or its device.
    assert rows["odd.same"]["pid"] != rows["odd.other"]["pid"] != rows["odd.last"]["pid"]
    assert not rows["odd.last"]["broken"] and not driver.running and not driver.work.exists()
    text = (tmp_path / "out" / "visit.txt").read_text().splitlines()
    assert len(text) == len(rows) and "odd.first: answer=42" in text[0]
    assert "no such thing\nand more" in (tmp_path / "out" / "errors.txt").read_text()
    assert text[0] in capfd.readouterr().out


def test_steps_by_name_and_without_time(driver, tmp_path):
    assert chosen("full.files", []) and chosen("full.files", ["lite", "full"])
    assert chosen("full.files", ["full.files"]) and not chosen("fuller.files", ["full"])
    driver.options.only, driver.end = ["odd.first", "odd.last"], time.time() + 4.5
    driver.rows("odd.first", answer=1)
    (driver.work / "begun.txt").write_text("odd.first 5\n")
    driver.measure(time.time() + 2)  # less than a step must have
    assert [row["step"] for row in read_rows(driver.out / "visit.json")] == ["odd.first"]
    driver.close()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--device cuda:99", "--device cuda:99: not available"),
        ("--device nonsense", "--device nonsense: not available"),
        ("--device cpu --experts lite nobody", "--experts nobody: not of lite,"),
        ("--device cpu --only lite full.nothing", "--only full.nothing: no such step or group"),
        ("--device cpu --out Makefile", "Makefile: cannot be written"),
    ],
)
def test_options_that_cannot_be(option, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = [] if "--out" in option else ["--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="2"):
        gpu_visit.arguments([*option.split(), *out], checked=True)
    assert told in capsys.readouterr().err
    only = ["--device", "cpu", "--only", "full", "lite.files", "train", "--out", str(tmp_path)]
    assert gpu_visit.arguments(only, checked=True).only == only[3:6]


def test_what_counts_as_an_error():
    fine = [{"step": "a", "error": NEEDS_CUDA}, {"step": "b", "skipped": "no time left"}]
    assert errors([*fine, {"step": "c", "above": []}]) == []
    bad = [{"step": "d", "error": "no"}, {"step": "e", "above": ["clip"]}]
    assert errors(fine + bad) == ["d: no", "e: above the tests' tolerance: clip"]


def test_no_training_after_its_last_step(driver, tmp_path, monkeypatch):
    driver.options.carried = tmp_path
    assert driver.nothing_to_train() == "no training faces were packed"
    (tmp_path / "faces.zip").touch()
    assert driver.nothing_to_train() == ""
    monkeypatch.setattr(gpu_visit, "TRAIN_STEPS", 10)
    driver.train()
    row = read_rows(driver.out / "visit.json")[-1]
    assert row["skipped"] == "trace_net_training.safetensors has had all of its 10 steps"
    driver.close()


def test_a_killed_visit_leaves_rows(tmp_path):
    start = (
        "from scripts import gpu_visit as v; v.Driver.prepare = lambda self: None; "
        f"o = v.arguments(['--out', {str(tmp_path)!r}, '--only', 'odd']); "
        "v.Driver(o, 'tests.gpu_plan').visit()"
    )
    where = {"cwd": ROOT, "env": os.environ | {"TMPDIR": str(tmp_path)}}  # it cannot clean up
    process = subprocess.Popen([sys.executable, "-c", start], **where, start_new_session=True)
    until = time.time() + 120
    while len(read_rows(tmp_path / "visit.json")) < 5 and time.time() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)  # in the step that hangs, or just before
    process.wait()
    rows = read_rows(tmp_path / "visit.json")
    assert rows[0]["answer"] == 42 and len(rows) >= 5
    with (tmp_path / "visit.json").open("a") as file:
        file.write('{"t": 1, "step": "cut o')
    assert read_rows(tmp_path / "visit.json") == rows
    assert report(rows).startswith("### unknown card")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory) -> tuple[Path, Path, int]:
    """Where the results of a rehearsal are, what was packed for it, and its exit code."""
    folder = tmp_path_factory.mktemp("rehearsal")
    out, carried = folder / "out", folder / "carry"
    return out, carried, gpu_rehearsal.rehearse(out, EXPERTS, carried)


def test_the_rehearsal_lacks_nothing(rehearsed):
    out, carried, code = rehearsed
    rows = read_rows(out / "visit.json")
    assert code == 0 and gpu_rehearsal.wrong(rows, gpu_rehearsal.planned()) == []
    found = {row["step"]: row for row in rows}
    assert found["correct.facenet"]["above"] == found["correct.lite"]["above"] == []
    assert found["full.files"]["missing"] == 0 and found["full.files"]["faces"] > 0
    assert found["correct.finding"]["moved"] < 0.5  # px
    assert all(levels["max"] <= 2 for levels in found["correct.cutting"]["levels"].values())
    assert found["predict"]["p_fake_apart"] == 0
    for profile in ("full", "lite"):
        assert "Self CPU" in (out / f"profile_{profile}.txt").read_text()
    assert set(found["train"]["kept"]) == set(gpu_visit.TRAINED) and "skipped" not in found["tests"]
    assert len(json.dumps(rows)) < 100_000
    assert len([path for path in out.rglob("*") if path.is_file()]) <= 8


def test_what_is_carried_is_small(rehearsed):
    _, carried, _ = rehearsed
    assert gpu_pack.weight(carried) < gpu_pack.LARGEST
    names = {path.name for path in carried.iterdir()}
    assert names == {"site", "astronaut.png", "hopper.jpg", "faces.zip"}
    assert not [*carried.rglob("*.so")]  # of another Python


def test_the_report_of_the_rehearsal(rehearsed):
    text = report(read_rows(rehearsed[0] / "visit.json"))
    for title in ("Goals", "Rates", "Experts", "Batches", "Other ways", "Correctness"):
        assert f"\n{title}:\n" in text
    assert "| facenet |" in text and "Failed:" not in text


def test_goals_of_a_card():
    rows = [
        {"step": "machine", "card": "NVIDIA H100 80GB HBM3", "date": "2026-01-01"},
        {"step": "full.files", "images_s": 600.0, "ms_face": 1.5},
        {"step": "full.forwards", "sum_ms_face": 1.25, "share_of_peak": 0.25},
        {"step": "full.plain", "images_s": 20.0},
        {"step": "try.graphs", "error": "RuntimeError: no"},
    ]
    text = report(rows)
    assert "| `full`, images/s from files | at least 500 | 600 | yes |" in text
    assert "| `full`, end to end over forwards | at most 1.25 | 1.2 | yes |" in text
    assert "| `full`, end to end over the plain loop | at least 10.0 | 30 | yes |" in text
    assert "matrix peak in its forwards | at least 0.35 | 0.25 | no |" in text
    assert "| `lite`, images/s from files | at least 3500 |  | not measured |" in text
    assert "- try.graphs: RuntimeError: no" in text
    assert "| end to end from files, images/s | 600 |  |" in text and "batch of it" not in text
    assert "Rates" not in report(rows[:1])


def test_too_much_to_carry_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_pack, "LARGEST", 1 << 20)
    with pytest.raises(ValueError, match=r"MiB, at most 1"):
        gpu_pack.pack(tmp_path / "carry")
    with pytest.raises(FileNotFoundError, match=r"none.zip: no such file"):
        gpu_pack.pack(tmp_path / "carry", faces=tmp_path / "none.zip")
    assert not [*tmp_path.iterdir()]


def test_the_plain_loop_asks_once_an_expert_that_answers_for_all_regions():
    class Once(WholeFaceExpert):
        name, crop, mean, std = "once", Crop.of_box(1.3, 16), (0.5,) * 3, (0.5,) * 3
        asked = 0

        def forward(self, faces):
            self.asked += 1
            return {"told": faces.float().mean((1, 2, 3))}

    class Each(Once):
        forward = WholeFaceExpert.forward

        def predict(self, images):
            self.asked += 1
            return {"told": images.mean((1, 2, 3))}

    face = torch.zeros(1, 4, 16, 16, dtype=torch.uint8)
    for kind, times in ((Once, 1), (Each, len(REGIONS))):
        expert = kind(torch.nn.Identity(), Path("weights"), False)
        assert len(one_by_one(expert, face)) == expert.asked == times
