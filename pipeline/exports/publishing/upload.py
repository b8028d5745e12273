"""The files of an export that are published, and the note of a publication."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.dataset.layout import EXPORT_KEY, publication_key
from pipeline.errors import AlreadyExists, SpecError
from pipeline.exports.destination import ExportRecord
from pipeline.storage import LocalStore, OutputStore, open_output


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A finished export in a local directory.

    `sizes` has each file that is sent, by its path in the export, with its size in bytes.
    `_EXPORT.json` is not sent: it names the place of the dataset.
    """

    folder: Path
    record: ExportRecord
    sizes: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes.values())

    @property
    def patterns(self) -> list[str]:
        """Patterns of the files that an export of this kind may have, here and in a repository."""
        return [*(f"{folder}/*" for folder in self.record.folders), *self.record.files]

    @property
    def has_images(self) -> bool:
        """Return whether image files are among the content."""
        options: dict[str, object] = self.record.details.get("options", {})
        return options.get("images") == "embed"

    @property
    def source(self) -> str:
        """URI of the dataset that the export was made of."""
        return str(self.record.details["source"])


class Publication(BaseModel):
    """The content of a file in `publications/`: an export at a commit of the hub."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    repository: str
    revision: str
    commit: str
    url: str
    visibility: str
    export_id: str
    format: str
    files: int
    size_bytes: int


def upload_of(place: str) -> Upload:
    """Return what would be published of an export. Raises SpecError if it is not whole or local."""
    store = open_output(place)
    if not isinstance(store, LocalStore):
        raise SpecError(
            f"{store.uri} is not a local directory, and files are sent from one; copy the export "
            "to this machine, and name the copy"
        )
    folder = Path(store.root.path)
    record = _record(folder)
    paths = [path for name in record.folders for path in (folder / name).rglob("*")]
    paths += [folder / name for name in record.files]
    sizes = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(set(paths))
        if path.is_file()
    }
    expected = record.details.get("files", len(sizes))
    if len(sizes) != expected:
        raise SpecError(
            f"{folder} holds {len(sizes)} files, but the export wrote {expected}; files were "
            "added or removed since: export again with --overwrite"
        )
    return Upload(folder=folder, record=record, sizes=sizes)


def note_publication(output: OutputStore, publication: Publication) -> str:
    """Note a publication in the dataset and return the key. A repetition changes nothing."""
    key = publication_key(publication.commit)
    with suppress(AlreadyExists):  # the same commit: nothing was new
        output.create(key, publication.model_dump_json(indent=2).encode())
    return key


def _record(folder: Path) -> ExportRecord:
    try:
        record = ExportRecord.model_validate_json((folder / EXPORT_KEY).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SpecError(
            f"{folder} holds no export ({EXPORT_KEY} is missing); make one with kosmos2 export"
        ) from error
    except ValidationError as error:
        raise SpecError(
            f"{folder / EXPORT_KEY} cannot be read by this version; name another export, or "
            "export again with --overwrite"
        ) from error
    if not record.is_complete:
        raise SpecError(
            f"{folder} is an unfinished export; run the same kosmos2 export command again, then "
            "publish"
        )
    return record
