"""ODVG JSON Lines, read by `datasets`."""

from pathlib import Path

from tests.support.export_contract import Boxes, ExportContract, Found, of_pixels
from tests.support.export_dataset import size


class TestOdvg(ExportContract):
    name = "odvg"
    has_scores = False

    def read(self, folder: Path) -> Boxes:
        import datasets

        rows = datasets.load_dataset(
            "json", data_files=str(folder / "data" / "*.jsonl"), cache_dir=str(folder) + "-cache"
        )["train"]
        places = {(row["filename"][0], int(Path(row["filename"]).stem)): row for row in rows}
        for place, row in places.items():
            assert (row["width"], row["height"]) == size(place)
            for region in row["grounding"]["regions"]:
                [[start, end]] = region["tokens_positive"]
                assert row["grounding"]["caption"][start:end] == region["phrase"]
        return {
            place: [
                Found(box=of_pixels(region["bbox"], place), phrase=region["phrase"], score=None)
                for region in row["grounding"]["regions"]
            ]
            for place, row in places.items()
        }
