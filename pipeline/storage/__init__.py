"""Access to storage: inputs at any URL, outputs through conditional writes.

All requests, errors and conditional writes that depend on a store are in this package.
"""

from pipeline.storage.bucket_store import BucketStore
from pipeline.storage.inputs import InputStore
from pipeline.storage.local_store import LocalStore
from pipeline.storage.objects import Fetched, ObjectInfo, StorageOptions
from pipeline.storage.opening import open_output
from pipeline.storage.outputs import OutputStore

__all__ = [
    "BucketStore",
    "Fetched",
    "InputStore",
    "LocalStore",
    "ObjectInfo",
    "OutputStore",
    "StorageOptions",
    "open_output",
]
