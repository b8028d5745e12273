"""Limits of what is read, whatever the kind of input."""

from dataclasses import dataclass

# Above any photograph; an input that claims more for one is wrong or hostile.
MAX_IMAGE_BYTES = 256 << 20
# Metadata beyond these are left out, which an issue says: the driver holds a shard's until its
# commit.
MAX_METADATA_BYTES = 1 << 20  # of one member, or row
MAX_SHARD_METADATA_CHARS = 256 << 20
MAX_ROW_CHARS = 4 << 20  # of a manifest's row as text
# In a list of images, in place of what is too large.
METADATA_LEFT_OUT = "-"
LEAST_ROW_BYTES = 16  # a table that claims more rows than its file has room for is none
MAX_NAME_CHARS = 4096  # as Linux has it for paths; object stores stop at 1,024 bytes


@dataclass(frozen=True, slots=True)
class Expansion:
    """Limit of compressed data: `ratio` times their size, and at least `least_bytes`."""

    ratio: int
    least_bytes: int  # allowed whatever the ratio

    def limit(self, size_bytes: int) -> int:
        return max(self.least_bytes, self.ratio * size_bytes)


# Text that repeats itself compresses well, and what is made of it has a limit of its own.
TEXT_EXPANSION = Expansion(1000, 1 << 30)
# Images hardly compress, and their metadata about tenfold; zeros do 1,000-fold and more.
TAR_EXPANSION = Expansion(100, 256 << 20)
# A page may claim 2 GiB, whatever this says: so the format has it.
PARQUET_EXPANSION = Expansion(100, 256 << 20)
# Of one compressed message. It says how large it will be, and Arrow holds it to that.
IPC_EXPANSION = Expansion(4, 64 << 20)
