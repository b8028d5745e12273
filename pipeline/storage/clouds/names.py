"""Names that obstore can send unchanged."""

import re

# It refuses the others, except that it drops slashes at the ends: it would read another object.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_SEGMENTS = frozenset({"", ".", ".."})


def is_spelt(key: str) -> bool:
    """Return whether obstore takes a key literally.

    >>> is_spelt("a/100%25 b*.jpg"), is_spelt("a//b.jpg"), is_spelt("a/")
    (True, False, False)
    """
    return not _CONTROL.search(key) and _NO_SEGMENTS.isdisjoint(key.split("/"))
