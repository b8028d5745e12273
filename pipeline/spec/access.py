"""How to reach the places that an output lies in, or goes to. Holds names, never credentials."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.storage import StorageOptions
from pipeline.storage.clouds.settings import check_settings


def _checked(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Raise StorageUrlError: the message repeats no value, and job.json would hold them."""
    check_settings(settings)
    return settings


StoreSettings: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_checked)]


class OutputAccess(BaseModel):
    """How to reach an output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_endpoint_url: str | None = Field(
        None,
        description="URL of the endpoint of the output's store. Default: from the environment.",
    )
    output_profile: str | None = Field(
        None, description="AWS profile for the output. Default: from the AWS environment."
    )

    output_storage_option: StoreSettings = Field(
        (),
        description="Setting of the output's store, as KEY=VALUE (see docs/clouds.md). Repeat for "
        "several.",
    )

    @property
    def output_storage(self) -> StorageOptions:
        return StorageOptions(
            endpoint_url=self.output_endpoint_url,
            profile=self.output_profile,
            settings=self.output_storage_option,
        )


class DestAccess(OutputAccess):
    """How to reach an output, and DEST, the place of what is made of it."""

    dest_endpoint_url: str | None = Field(
        None, description="URL of the endpoint of DEST's store. Default: from the environment."
    )
    dest_profile: str | None = Field(
        None, description="AWS profile for DEST. Default: from the AWS environment."
    )

    dest_storage_option: StoreSettings = Field(
        (),
        description="Setting of DEST's store, as KEY=VALUE (see docs/clouds.md). Repeat for "
        "several.",
    )

    @property
    def dest_storage(self) -> StorageOptions:
        return StorageOptions(
            endpoint_url=self.dest_endpoint_url,
            profile=self.dest_profile,
            settings=self.dest_storage_option,
        )
