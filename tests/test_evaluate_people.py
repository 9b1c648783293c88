"""The command evaluate.py with the protocol `reference`."""

from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.reference import table_of as benchmark_table
from data.dump import COLUMNS
from evaluate import evaluate
from evaluation import reference
from evaluation.metrics_table import read_metrics
from evaluation.plan import Config as EvaluateConfig
from tests.synthetic import write_dump
from tests.toy_people import toy_people


def test_evaluate_reports_claims_against_photographs(tmp_path, monkeypatch):
    """The command, on a dump of people alone: nothing is trained, the comparison is fitted on `val`."""
    faces = [toy_people(split, seed) for split, seed in (("val", 0), ("test", 1))]
    rows = {x: np.concatenate([each.rows[x] for each in faces]) for x in faces[0].rows}
    folder = tmp_path / "dump"
    change = {name: values for name, values in rows.items() if name in COLUMNS}
    change["toy.identity"] = np.concatenate([each.arrays["lite.identity"] for each in faces])
    write_dump(folder, groups=len(rows["label"]) // 4, change=change)
    nowhere = {"REFERENCE": tmp_path / "a.json", "REFERENCE_LITE": tmp_path / "b.json"}
    for name, path in nowhere.items():
        monkeypatch.setattr(reference, name, path)
    config = EvaluateConfig(
        features=(folder,), out=tmp_path / "report", no_checkpoint=True, replicates=20
    )
    out = evaluate(replace(config, protocols=("reference",)))
    table = read_metrics(out / "metrics.csv")
    assert set(table["protocol"]) - {""} == {"reference"}
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "With genuine photographs of the person" in text and "face's person" in text
    shown = benchmark_table(table, 1)
    assert float(shown.loc[("face's person", reference.MASC), "clean"]) > 0.9
    again = evaluate(replace(config, protocols=("reference",)))
    pd.testing.assert_frame_equal(read_metrics(again / "metrics.csv"), table)
