"""The kinds of input, described in docs/inputs.md."""

from typing import Literal

InputKind = Literal["webdataset", "parquet", "arrow", "files", "manifest"]
# Kinds of single-image objects; the plan has a list of them (`listing`).
LISTED_KINDS: frozenset[InputKind] = frozenset({"files", "manifest"})
