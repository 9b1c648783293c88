"""Writing a dump (data/dump.py): the faces first, then one file per expert output.

Two passes over the pictures, each in shards: fixed ranges of the samples, one file per shard in
`unfinished/`. The first pass ends with index.csv and failures.csv. The second computes the outputs
of the experts that the dump lacks; it ends with their .npy files, missing.csv and meta.json.

Every file is written under a temporary name, flushed and renamed. A run that is killed at any
instant and started again repeats at most one shard and ends with the same bytes. Adding experts to
a finished dump is the second pass again; the dump can be read meanwhile.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from data.cutting import KnownFaces
from data.dump import (
    COLUMNS,
    FAILURE_COLUMNS,
    FORMAT,
    LANDMARKS,
    MISSING_COLUMNS,
    NO_FACE,
    Dump,
    Row,
    read_csv,
    read_dump,
    read_missing,
    read_rows,
)
from data.dump_folder import DumpFolder
from data.files import replacing, write_csv, write_json
from data.samples import Sample
from data.splits import fill_groups_and_splits

NOT_FINITE = "outputs that are not finite, or beyond the range of float16"
SPOILED = 0.05  # of the faces with changed or unreadable pictures: not the dataset of the dump

Shards = list[tuple[int, list[Sample]]]


class DumpWriter(DumpFolder):
    """Writes a dump shard by shard, and continues where an earlier run with these settings stopped.

    Use it as a context: it locks the dump until it ends.

    Args:
        out: the folder of the dump.
        config: the settings on which the bytes depend, whatever the experts.
        weights: expert -> SHA-256, of the experts asked for. Those that the dump has are kept.
        samples: all of the dataset, in a fixed order.
        shard_size: samples per shard; an unfinished dump keeps the size that it was begun with.
        overwrite: begin anew where the dump is finished or has other settings.

    Attributes:
        new: the experts asked for that the dump lacks.
        meta: the contents of meta.json; empty where there is none yet.

    Raises:
        ValueError: the folder holds a dump with other settings (the message says which), files that
            are no dump, or a dump that another process is writing.
    """

    # The first pass.

    @property
    def faces_found(self) -> bool:
        return (self.out / "index.csv").is_file()

    def pending_faces(self) -> Shards:
        """(number, samples) of each shard whose faces are not on disk yet."""
        if self.faces_found:
            return []
        return [(n, self._samples_of(n)) for n in self._numbers if not self._shard(n).exists()]

    def write_faces(
        self, number: int, rows: Sequence[Row], failures: Sequence[tuple[str, str]]
    ) -> None:
        """Write one shard. failures: (path, reason) of every sample without a row."""
        expected = sorted(sample.path for sample in self._samples_of(number))
        if sorted({row.path for row in rows} | {path for path, _ in failures}) != expected:
            raise ValueError(f"shard {number}: every sample must be in the rows or in the failures")
        lines = [[kind(getattr(row, name)) for name, kind in COLUMNS.items()] for row in rows]
        with replacing(self._shard(number)) as file:
            file.write(json.dumps({"rows": lines, "failures": sorted(failures)}).encode())

    def finish_faces(self) -> None:
        """Write index.csv and failures.csv, with a group and a split for every face."""
        if self.faces_found:
            return
        if pending := self.pending_faces():
            raise ValueError(f"{self.out}: {len(pending)} shards are missing")
        hashes = {row.path: row.phash for row in self._rows()}
        kept = [sample for sample in self.samples if sample.path in hashes]
        kept = fill_groups_and_splits(kept, [hashes[sample.path] for sample in kept])
        chosen = {s.path: {"group": s.group, "split": s.split} for s in kept}
        lines = (
            [
                repr(value) if name in LANDMARKS else value
                for name, value in {**vars(row), **chosen[row.path]}.items()
            ]
            for row in self._rows()
        )
        write_csv(self.out / "failures.csv", FAILURE_COLUMNS, self._face_notes("failures"))
        write_csv(self.out / "index.csv", list(COLUMNS), lines)

    def _face_notes(self, name: str) -> Iterator[list]:
        for number in self._numbers:
            yield from json.loads(self._shard(number).read_bytes())[name]

    def _rows(self) -> Iterator[Row]:
        return (Row(*values) for values in self._face_notes("rows"))

    # The second pass.

    @cached_property
    def faces(self) -> KnownFaces:
        """The faces in index.csv."""
        return KnownFaces(read_rows(self.out / "index.csv"))

    def _with_faces(self, number: int) -> list[Sample]:
        return [sample for sample in self._samples_of(number) if sample.path in self.faces.of]

    def _shards_with_faces(self) -> Iterator[tuple[int, list[Sample]]]:
        for number in self._numbers:
            if samples := self._with_faces(number):
                yield number, samples

    def pending(self) -> Shards:
        """(number, samples with a face) of each shard that lacks an output of a new expert."""
        if self.complete:
            return []
        return [
            (number, samples)
            for number, samples in self._shards_with_faces()
            if not all(self._shard(number, expert).exists() for expert in self.new)
        ]

    def write_outputs(
        self,
        number: int,
        which: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        failures: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Write the outputs of all new experts for one shard.

        Args:
            which: (K,) the rows of index.csv that the outputs belong to.
            arrays: `<expert>.<output>` -> (K, R, D); none where K is 0.
            failures: (path, reason) of the pictures whose faces have no output.

        Raises:
            ValueError: a face of the shard is unaccounted for, or lengths differ.
        """
        which, reasons = np.asarray(which, dtype=int), dict(failures)
        rows = [row for s in self._with_faces(number) for row in self.faces.of[s.path]]
        lost = [row for path in reasons for row in self.faces.of[path]]
        if sorted([*which.tolist(), *lost]) != rows:
            raise ValueError(f"shard {number}: these are not the faces of {self.out / 'index.csv'}")
        for expert in self.new:
            tensors, broken = {}, np.isin(rows, lost)
            for name in (name for name in arrays if name.startswith(f"{expert}.")):
                if len(arrays[name]) != len(which):
                    raise ValueError(
                        f"shard {number}: {len(arrays[name])} values of {name} for "
                        f"{len(which)} faces"
                    )
                tensors[name] = np.full((len(rows), *arrays[name].shape[1:]), np.nan, "<f2")
                with np.errstate(over="ignore"):
                    tensors[name][which - rows[0]] = arrays[name]
                broken |= ~np.isfinite(tensors[name]).all((1, 2))
            keys = [self.faces.key(rows[i]) for i in np.flatnonzero(broken)]
            missing = [(*key, expert, reasons.get(key[0], NOT_FINITE)) for key in keys]
            with replacing(self._shard(number, expert)) as file:
                file.write(save(tensors, metadata={"missing": json.dumps(missing)}))

    def finish(self, meta: Mapping) -> Dump:
        """Put the outputs of the new experts beside those that are there.

        Args:
            meta: dataset, data_root, profile, regions, versions, and outputs and weights of all
                experts. The format, the settings and the counts are added.

        Raises:
            ValueError: shards are missing, an array has not the shape that `meta` says, or more
                than SPOILED of the faces have pictures that cannot be used.
        """
        if self.complete:
            return read_dump(self.out)
        if pending := self.pending():
            raise ValueError(f"{self.out}: {len(pending)} shards are missing")
        missing = self._missing()
        self._merge(len(meta["regions"]), meta["outputs"])
        write_csv(self.out / "missing.csv", MISSING_COLUMNS, sorted(missing))
        counts = self.meta.get("counts") or self._counts()
        self.meta = {"format": FORMAT, **meta, "config": self.config, "counts": counts}
        write_json(self.out / "meta.json", self.meta)
        self._tidy()
        return read_dump(self.out)

    def _missing(self) -> list[tuple[str, int, str, str]]:
        """What missing.csv has to hold."""
        found, spoiled = [], {}
        for number, _ in self._shards_with_faces():
            for path in (self._shard(number, expert) for expert in self.new):
                with safe_open(path, framework="numpy") as shard:
                    missing = [tuple(entry) for entry in json.loads(shard.metadata()["missing"])]
                found += missing
                faces = {entry[:2]: entry[3] for entry in missing if entry[3] != NOT_FINITE}
                spoiled.setdefault(path, {}).update(faces)
        faces = {key: reason for each in spoiled.values() for key, reason in each.items()}
        if len(faces) > SPOILED * len(self.faces):
            for path in (path for path, each in spoiled.items() if each):
                path.unlink()
            key, reason = next(iter(faces.items()))
            raise ValueError(
                f"{self.out}: {len(faces)} of {len(self.faces)} faces have no usable picture any "
                f"more ({key[0]}: {reason}). Is this the dataset that the faces were found in? Put "
                "the pictures back and run the same command again, or use --overwrite"
            )
        if not self.meta:
            return found
        kept = read_missing(self.out / "missing.csv")
        return [*found, *(entry for entry in kept if entry[2] in self.meta["weights"])]

    def _merge(self, regions: int, outputs: Mapping[str, Mapping]) -> None:
        """Write the arrays from the shards. To a memory map, a full disk would be a bus error."""
        sizes = {k: o["size"] for k, o in outputs.items() if k.partition(".")[0] in self.new}
        shards = [
            (number, sum(len(self.faces.of[sample.path]) for sample in samples))
            for number, samples in self._shards_with_faces()
        ]
        for name, size in sizes.items():
            with replacing(self.out / f"{name}.npy") as file:
                shape = (len(self.faces), regions, size)
                header = {"descr": "<f2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for number, faces in shards:
                    shape = (faces, regions, size)
                    array = np.full(shape, np.nan, "<f2")  # all pictures of the shard were lost
                    path = self._shard(number, name.partition(".")[0])
                    with safe_open(path, framework="numpy") as shard:
                        if name in {*shard.keys()}:
                            array = shard.get_tensor(name)
                    if array.shape != shape:
                        raise ValueError(f"{name}: shape {array.shape}, expected {shape}")
                    file.write(array.tobytes())

    def _counts(self) -> dict[str, int]:
        failures = read_csv(self.out / "failures.csv", FAILURE_COLUMNS)
        no_face = sum(reason == NO_FACE for _, reason in failures)
        labels = Counter(self.faces.label.tolist())
        return {
            "images": len(self.samples),
            "kept": len(self.faces.of),
            "faces": len(self.faces),
            "real": labels[0],
            "fake": labels[1],
            "no_face": no_face,
            "unreadable": len(failures) - no_face,
        }
