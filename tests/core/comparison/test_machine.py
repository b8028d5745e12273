"""The description of a machine."""

from importlib.metadata import version
from pathlib import Path

from kosmos2_core.comparison.machine import processor, versions


def test_the_processor_is_the_one_that_linux_lists(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text("processor\t: 0\nmodel name\t: Quick 9: the fast one\n\nprocessor\t: 1\n")
    assert processor(listing) == "Quick 9: the fast one"


def test_a_processor_that_is_not_listed_has_a_name(tmp_path: Path) -> None:
    assert processor(tmp_path / "nothing")


def test_a_package_that_is_missing_is_said() -> None:
    assert versions("torch", "no-such-package") == {
        "torch": version("torch"),
        "no-such-package": "none",
    }
