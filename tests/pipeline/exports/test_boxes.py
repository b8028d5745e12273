"""The flat table of boxes, read by pyarrow."""

from pathlib import Path

import pytest

from tests.support.export_contract import Boxes, ExportContract, Found, of_pixels, parquet


class TestBoxes(ExportContract):
    name = "boxes"

    def read(self, folder: Path) -> Boxes:
        found: Boxes = {("a", 3): []}  # an image without boxes has no rows
        for row in parquet(folder):
            place = (row["shard_id"][0], row["index"])
            box = tuple(row[corner] for corner in ("x1", "y1", "x2", "y2"))
            pixels = [row[f"{corner}_px"] for corner in ("x1", "y1", "x2", "y2")]
            assert of_pixels(pixels, place) == pytest.approx(box, abs=0.001)
            assert row["caption"][row["start"] : row["end"]] == row["phrase"]
            one = Found(box=box, phrase=row["phrase"], score=row["score"])
            found.setdefault(place, []).append(one)
        return found
