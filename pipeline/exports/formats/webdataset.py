"""WebDataset tars: the image and a JSON file with its annotation."""

import io
import tarfile

from pipeline.exports.example import Example
from pipeline.exports.formats.protocol import Format
from pipeline.exports.papers.records import ExportContents, RecordSet, json_fields
from pipeline.exports.parts import Record, json_text

_FIELDS = (
    *("key", "caption", "width", "height", "task", "prompt", "finish_reason", "issues"),
    *("shard_id", "index", "uri", "member", "image_offset", "image_size", "image_sha256"),
)


class TarPart:
    """A tar without times and owners, so that the same examples give the same bytes."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, example: Example) -> None:
        if example.image is not None:
            self.add_file(example.image_name, example.image.data)
        self.add_file(f"{example.name}.json", json_text(_record(example)).encode())

    @property
    def size_bytes(self) -> int:
        return self._buffer.tell()

    def finish(self) -> dict[str, bytes]:
        self._tar.close()
        return {"data/{part}.tar": self._buffer.getvalue()}

    def add_file(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        self._tar.members = []  # type: ignore[attr-defined]  # else they stay in memory


def _record(example: Example) -> Record:
    return {
        **{name: getattr(example, name) for name in _FIELDS},
        "entities": example.entity_records(),
        "metadata": example.carried(),
    }


def _records(contents: ExportContents) -> list[RecordSet]:
    texts = ("key", "caption", "task", "prompt", "finish_reason", "shard_id", "uri", "image_sha256")
    fields = json_fields("$", **dict.fromkeys(texts, str), width=int, height=int, index=int)
    return [
        RecordSet(
            name="samples",
            about="A file per image and task, beside the image of the same name. Each of its "
            "`entities` has a list of `boxes`.",
            archives="data/*.tar",
            files="*.json",
            fields=fields,
        )
    ]


FORMAT = Format(
    title="WebDataset",
    open=lambda setting: setting.parts(TarPart),
    folders=("data",),
    records=_records,
    embeds=True,
    about="""\
Tars of `NAME.jpg` (or png, webp, ...) and `NAME.json` with the caption and its entities. The same
export gives the same bytes. Left out: patch indices, token ids and their log-probabilities.
An export without annotations has one empty tar, which needs `empty_check=False`.

```python
webdataset.WebDataset("DEST/data/train-00000.tar", shardshuffle=False).decode("pil")
```
""",
)
