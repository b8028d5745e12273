"""Where bytes live: inputs through any fsspec URL, outputs through conditional writes.

objects.py    StorageOptions, ObjectInfo, and what a URL means
failures.py   every foreign exception becomes one of ours here
s3.py         the S3 requests that we make, each one conditional where it matters
inputs.py     InputStore: list, open, verify
ranged.py     a file over requests for ranges
sources.py    the places that inputs come from
web.py        images from the web, and from nowhere else by that way
globs.py      which paths beneath an input are meant
ignored.py    what is not read, by reason
outputs.py    OutputStore: the contract; local_store.py and s3_store.py keep it
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
