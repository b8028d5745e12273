"""How to reach the places that an output lies in, or goes to. Holds names, never credentials."""

from pydantic import BaseModel, ConfigDict, Field

from pipeline.storage import StorageOptions


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

    @property
    def output_storage(self) -> StorageOptions:
        return StorageOptions(endpoint_url=self.output_endpoint_url, profile=self.output_profile)


class DestAccess(OutputAccess):
    """How to reach an output, and DEST, the place of what is made of it."""

    dest_endpoint_url: str | None = Field(
        None, description="URL of the endpoint of DEST's store. Default: from the environment."
    )
    dest_profile: str | None = Field(
        None, description="AWS profile for DEST. Default: from the AWS environment."
    )

    @property
    def dest_storage(self) -> StorageOptions:
        return StorageOptions(endpoint_url=self.dest_endpoint_url, profile=self.dest_profile)
