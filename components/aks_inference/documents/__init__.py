"""Declarations in files, checked together without a stack: `aks-inference check`."""

from aks_inference.documents.checking import Outcome, check_documents
from aks_inference.documents.reading import Document, Problem, read_files

__all__ = ["Document", "Outcome", "Problem", "check_documents", "read_files"]
