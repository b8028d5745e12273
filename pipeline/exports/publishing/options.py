"""Options of `publish`; the command line's flags and help derive from them."""

import re

from pydantic import Field, field_validator

from pipeline.errors import SpecError
from pipeline.spec.access import OutputAccess

_BRANCH = re.compile(r"(?!.*(\.\.|//|/\.|\.lock$|/$))[A-Za-z0-9][\w./-]*", re.ASCII)


class PublishOptions(OutputAccess):
    """All options of a publication except the export and the repository.

    `output_*` are for the dataset that the export was made of.
    """

    private: bool = Field(False, description="Only you and your organization can see it.")
    public: bool = Field(False, description="Everyone can see and download it.")
    revision: str = Field("main", description="Branch to write to; it is created if missing.")
    dry_run: bool = Field(
        False, description="List what would be sent and made, and send nothing to the hub."
    )
    no_record: bool = Field(
        False,
        description="Do not note the revision in `publications/` of the dataset that the export "
        "was made of, for instance if that dataset no longer exists.",
    )

    @field_validator("revision")
    @classmethod
    def _branch(cls, name: str) -> str:
        if _BRANCH.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no name of a branch; give one such as v1 or main")
        return name

    @property
    def visibility(self) -> str:
        """`private` or `public`. Raises SpecError unless exactly one was asked for."""
        if self.private == self.public:
            raise SpecError(
                "say who can see the published dataset: give --private or --public, one of them"
            )
        return "private" if self.private else "public"
