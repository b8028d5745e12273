"""Access to storage: inputs through any fsspec URL, outputs through conditional writes.

All requests, errors and conditional writes that depend on a store are in this package.
"""

from pipeline.storage.inputs import InputStore
from pipeline.storage.local_store import LocalStore
from pipeline.storage.objects import Fetched, ObjectInfo, StorageOptions
from pipeline.storage.opening import open_output
from pipeline.storage.outputs import OutputStore
from pipeline.storage.s3_store import S3Store

__all__ = [
    "Fetched",
    "InputStore",
    "LocalStore",
    "ObjectInfo",
    "OutputStore",
    "S3Store",
    "StorageOptions",
    "open_output",
]
