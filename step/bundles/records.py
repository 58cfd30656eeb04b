"""What the manifest's records have in common (torch-free)."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Immutable, and strict about what it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
