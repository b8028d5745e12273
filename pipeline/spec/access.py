"""How to reach the places that an output lies in, or goes to. Holds names, never credentials."""

from pydantic import BaseModel, ConfigDict, Field

from pipeline.storage import StorageOptions


class OutputAccess(BaseModel):
    """How to reach an output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_endpoint_url: str | None = Field(None, description="S3 endpoint of the output.")
    output_profile: str | None = Field(None, description="AWS profile for the output.")

    @property
    def output_storage(self) -> StorageOptions:
        return StorageOptions(endpoint_url=self.output_endpoint_url, profile=self.output_profile)


class DestAccess(OutputAccess):
    """How to reach an output, and DEST, the place of what is made of it."""

    dest_endpoint_url: str | None = Field(None, description="S3 endpoint of DEST.")
    dest_profile: str | None = Field(None, description="AWS profile for DEST.")

    @property
    def dest_storage(self) -> StorageOptions:
        return StorageOptions(endpoint_url=self.dest_endpoint_url, profile=self.dest_profile)
