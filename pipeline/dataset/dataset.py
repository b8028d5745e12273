"""The dataset on storage: its plan, and `job.json`, which the first run writes."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from pydantic import ValidationError

from pipeline.dataset.layout import PLANS, RECORD_KEY, SUCCESS_KEY
from pipeline.dataset.ledger import Totals
from pipeline.dataset.shards import ShardPlan, load_plan
from pipeline.errors import AlreadyExists, ObjectMissing, SpecError, WrongIdentity
from pipeline.faults import fault
from pipeline.spec.identity import Identity, JobRecord, ResolvedModel, identity_of
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore, StorageOptions, open_output
from pipeline.storage.ignored import Ignored
from pipeline.version import DISTRIBUTION, our_version

_PACKAGES = ("torch", "transformers", "pillow", "simplejpeg", "ray", "pyarrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDataset:
    """An output that has a job record and a plan."""

    store: OutputStore
    plan: ShardPlan
    record: JobRecord


def read_record(store: OutputStore) -> JobRecord | None:
    """Read `job.json`, or return None. Raises SpecError if another version wrote it."""
    try:
        return JobRecord.model_validate_json(store.get(RECORD_KEY).data)
    except ObjectMissing:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(
            f"{store.uri}/{RECORD_KEY} cannot be read by this version ({first['msg']}: "
            f"{'.'.join(map(str, first['loc']))}); use the version that wrote it, or another output"
        ) from error


def open_dataset(output: str, options: StorageOptions) -> StoredDataset:
    """Open a dataset.

    Raises ObjectMissing if there is none, SpecError if another version wrote it.
    """
    store = open_output(output, options)
    record, plan = known_record(store), load_plan(store)
    if plan is None:
        raise _no_dataset(store, PLANS)
    return StoredDataset(store=store, plan=plan, record=record)


def known_record(store: OutputStore) -> JobRecord:
    """Read `job.json`. Raises ObjectMissing, SpecError."""
    record = read_record(store)
    if record is None:
        raise _no_dataset(store, RECORD_KEY)
    return record


def check_annotatable(store: OutputStore, record: JobRecord | None) -> None:
    """Raise SpecError for a dataset that was derived from another: it has no input to annotate."""
    if record is not None and record.source is not None:
        by = record.identity.derived[-1].operation
        raise SpecError(
            f"{store.uri} cannot be annotated: `kosmos2 {by}` derived it from {record.source}; "
            "annotate that dataset and derive this one again"
        )


def write_success(store: OutputStore, record: JobRecord, totals: Totals) -> None:
    """Write the file that says that every planned shard is committed."""
    body = {
        "fingerprint": record.fingerprint,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(totals),
    }
    store.put(SUCCESS_KEY, json.dumps(body, indent=2).encode())


def settle_record(
    store: OutputStore,
    spec: JobSpec,
    model: ResolvedModel,
    ignored: tuple[Ignored, ...] = (),
) -> JobRecord:
    """Return the job record; write it first if there is none.

    `ignored` lists what the plan left out. Raises WrongIdentity, naming what differs, if the record
    was written with other settings.
    """
    record = read_record(store)
    identity = identity_of(spec, model)
    if record is None:
        record = _write_record(store, spec, model, identity, ignored)
    check_identity(store, identity, record)
    return record


def check_identity(store: OutputStore, identity: Identity, record: JobRecord) -> None:
    if differences := identity.differences(record.identity):
        raise WrongIdentity(
            f"{store.uri} holds annotations made with other settings ({_said(differences)}); use "
            "another output, or the settings in its job.json"
        )


# Settings that decide which fields of a sample are kept, and not what is answered to its image.
_BESIDE_ANSWERS = ("image_column", "image_member", "carry", "metadata")


def check_same_answers(identity: Identity, other: OutputStore) -> None:
    """Raise WrongIdentity if the dataset `other` may have other answers to the same images."""
    differences = identity.differences(known_record(other).identity)
    if said := _said({k: v for k, v in differences.items() if k not in _BESIDE_ANSWERS}):
        raise WrongIdentity(
            f"answers cannot be taken from {other.uri}, which was made with other settings "
            f"({said}); leave out --reuse, or use its settings"
        )


def _said(differences: Mapping[str, tuple[object, object]]) -> str:
    return "; ".join(
        f"{name}: requested {_brief(asked)}, stored {_brief(there)}"
        for name, (asked, there) in differences.items()
    )


def _no_dataset(store: OutputStore, missing: str) -> ObjectMissing:
    return ObjectMissing(
        f"{store.uri} holds no dataset ({missing} does not exist); check the URL of the output"
    )


def _write_record(
    store: OutputStore,
    spec: JobSpec,
    model: ResolvedModel,
    identity: Identity,
    ignored: tuple[Ignored, ...],
) -> JobRecord:
    record = JobRecord(
        spec=spec,
        model=model,
        identity=identity,
        fingerprint=identity.fingerprint,
        software={
            DISTRIBUTION: our_version(),
            **{name: version(name) for name in _PACKAGES},
            "python": platform.python_version(),
        },
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ignored=ignored,
    )
    fault("job.before_record")
    try:
        store.create(RECORD_KEY, record.model_dump_json(indent=2).encode())
    except AlreadyExists:
        winner = read_record(store)
        assert winner is not None, "a record that exists can be read"
        return winner
    return record


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."
