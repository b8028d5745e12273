"""Limits of reading, for all kinds of input."""

from dataclasses import dataclass

# Larger than any photograph; an input that claims more is wrong or hostile.
MAX_IMAGE_BYTES = 256 << 20
# Larger metadata are left out, and an issue says so. The driver holds a shard's metadata until its
# commit.
MAX_METADATA_BYTES = 1 << 20  # of one member, or row
MAX_SHARD_METADATA_CHARS = 256 << 20
MAX_ROW_CHARS = 4 << 20  # of a manifest's row as text
# Marks metadata that are too large, in a list of images.
METADATA_LEFT_OUT = "-"
LEAST_ROW_BYTES = 16  # a table that claims more rows than fit into its file is not valid
MAX_NAME_CHARS = 4096  # the limit of Linux for paths; object stores allow 1,024 bytes


@dataclass(frozen=True, slots=True)
class Expansion:
    """A limit on decompressed data: `ratio` times the compressed size, at least `least_bytes`."""

    ratio: int
    least_bytes: int  # allowed for any ratio

    def limit(self, size_bytes: int) -> int:
        return max(self.least_bytes, self.ratio * size_bytes)


# Repetitive text compresses well, and what is made of it has a separate limit.
TEXT_EXPANSION = Expansion(1000, 1 << 30)
# Images hardly compress, and their metadata about tenfold; zeros compress 1,000-fold and more.
TAR_EXPANSION = Expansion(100, 256 << 20)
# The format lets a page claim 2 GiB, regardless of this limit.
PARQUET_EXPANSION = Expansion(100, 256 << 20)
# For one compressed message. It declares its expanded size, and Arrow enforces that.
IPC_EXPANSION = Expansion(4, 64 << 20)
