"""The kinds of input that there are: docs/inputs.md."""

from typing import Literal

InputKind = Literal["webdataset", "parquet", "arrow", "files", "manifest"]
# Of images that are objects of their own; the plan has a list of them (`listing`).
LISTED_KINDS: frozenset[InputKind] = frozenset({"files", "manifest"})
