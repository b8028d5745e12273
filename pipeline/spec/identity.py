"""What was done to a dataset to make another one of it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Derivation(BaseModel):
    """`source_fingerprint` is that of the dataset it was made from; `parameters` are what was
    asked for, in words of the command line. What the whole source decides, not each shard for
    itself, also depends on `source_commits`, a digest of what was committed there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Literal["filter", "dedup"]
    source_fingerprint: str
    parameters: tuple[str, ...]
    source_commits: str | None = None
