"""How much a folder may hold that is copied, packed or sent, after ignoring."""

from dataclasses import dataclass

MEGABYTE = 1024 * 1024
MAX_MB = 300
MAX_FILES = 2_000
"""Azure ML's limits of a snapshot (reference: azureml-v1.md 6.4)."""


@dataclass(frozen=True)
class ContextLimits:
    """Both hold."""

    max_mb: int = MAX_MB
    max_files: int = MAX_FILES

    @staticmethod
    def of(max_mb: float | None, max_files: float | None) -> "ContextLimits":
        """As arguments say it: what they leave out is Azure ML's."""
        return ContextLimits(int(max_mb or MAX_MB), int(max_files or MAX_FILES))

    @property
    def max_bytes(self) -> int:
        """Of all files together."""
        return self.max_mb * MEGABYTE


AZURE_ML = ContextLimits()
