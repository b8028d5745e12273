"""GrIT's columns, read by pyarrow."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline.exports.exporting import README_KEY
from tests.support.export_contract import Boxes, ExportContract, Found, parquet, place_of_id
from tests.support.export_dataset import META, size


class TestGrit(ExportContract):
    name = "grit"
    SCHEMA = (
        "key: string, clip_similarity_vitb32: double, clip_similarity_vitl14: double, id: int64, "
        "url: string, caption: string, width: int64, height: int64, "
        "noun_chunks: list<element: list<element: double>>, "
        "ref_exps: list<element: list<element: double>>"
    )

    def read(self, folder: Path) -> Boxes:
        return {
            place_of_id(row["id"]): [
                Found(
                    box=tuple(box),
                    phrase=row["caption"][int(start) : int(end)],
                    score=None if np.isnan(score) else score,
                )
                for start, end, *box, score in row["noun_chunks"]
            ]
            for row in parquet(folder)
        }

    def test_it_has_grits_columns(self, folder: Path) -> None:
        table = pq.read_table(folder / "data")
        assert ", ".join(f"{f.name}: {f.type}" for f in table.schema) == self.SCHEMA
        assert b"GLIP" in table.schema.metadata[b"kosmos2.score"]
        assert "GLIP" in (folder / README_KEY).read_text()

    def test_carried_fields_are_taken_and_others_null(self, folder: Path) -> None:
        first, second, *_ = parquet(folder)
        assert (first["clip_similarity_vitb32"], first["clip_similarity_vitl14"]) == (0.25, None)
        assert (first["url"], second["clip_similarity_vitb32"]) == (META["url"], None)
        assert second["url"].endswith("/in/a.tar")
        assert first["ref_exps"] == first["noun_chunks"]
        assert (second["width"], second["height"]) == size(("a", 2))
