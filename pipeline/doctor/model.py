"""The model of a job, without fetching it."""

import shutil

from kosmos2_core.checkpoint.files import cached_snapshot, is_hub_id, locate_checkpoint
from pipeline.doctor.setup import JobSetup
from pipeline.errors import SpecError
from pipeline.models.cache import cache_folder
from pipeline.models.staging import objects_in
from pipeline.storage.objects import LOCAL_SCHEMES, Location, locate


def model_at_hand(setup: JobSetup) -> str:
    """Return where the model is. Raises PipelineError, CheckpointError if a job could not use it.

    A model of the Hub or of a store is not fetched: each node of a job does that once.
    """
    name = setup.spec.model.removeprefix("hf://")
    if is_hub_id(name):
        snapshot = cached_snapshot(name)
        if snapshot is None:
            return f"{name}: not in this machine's cache of the Hub; each node fetches it once"
        return f"{name}: in {snapshot}"
    at = locate(name) if "://" in name else None
    if at is None or at.scheme in LOCAL_SCHEMES:
        files = locate_checkpoint(at.path if at else name)
        return f"{files.id}: in {files.directory}"
    return _in_a_store(at)


def _in_a_store(at: Location) -> str:
    found = objects_in(at)
    if "config.json" not in found:
        raise SpecError(f"{at.uri} has no config.json: it holds no model, or its fetch was cut off")
    size_bytes = sum(each.size_bytes for each in found.values())
    folder = cache_folder()
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if (free := shutil.disk_usage(there).free) < size_bytes:
        raise SpecError(
            f"{at.uri} has {size_bytes / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB free; "
            "free space there, or set KOSMOS2_CACHE to another folder"
        )
    return f"{at.uri}: {size_bytes / 1e6:.1f} MB, which each node fetches once"
