"""Prepares, extracts, checks and loads AVA's videos and annotations.

`AvaDataset` needs torch and a torchvision that fits it (see `step.data.torchvision`) and is imported on first use; the
rest needs neither.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from step.data.ava_dataset import AvaDataset

__all__ = ["AvaDataset"]


def __getattr__(name: str) -> Any:
    if name == "AvaDataset":
        from step.data.ava_dataset import AvaDataset

        return AvaDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
