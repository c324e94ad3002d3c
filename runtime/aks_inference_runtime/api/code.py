"""Which files a version's code is, and their digest: the same answer where it is declared and where it runs."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

NOT_CODE = frozenset({"__pycache__", ".git", ".ipynb_checkpoints"})
"""Folders that change without the code changing; neither counted nor copied."""
NOT_CODE_SUFFIXES = frozenset({".pyc", ".pyo"})
_BLOCK = 1 << 20


def code_files(source: Path) -> Iterator[Path]:
    """All files of a source directory as relative paths in a fixed order; a lone script is itself.

    Ignore files (.amlignore, .gitignore) do not count: neither did they for Azure ML's inference source directory.
    """
    if source.is_file():
        yield Path(source.name)
        return
    for path in sorted(source.rglob("*"), key=lambda p: p.relative_to(source).as_posix()):
        relative = path.relative_to(source)
        if NOT_CODE.isdisjoint(relative.parts) and relative.suffix not in NOT_CODE_SUFFIXES and path.is_file():
            yield relative


def code_digest(source: Path) -> str:
    """`sha256:<hex>` over names and contents. Raises OSError."""
    digest = hashlib.sha256()
    root = source.parent if source.is_file() else source
    for relative in code_files(source):
        content = hashlib.sha256()
        with (root / relative).open("rb") as file:
            while block := file.read(_BLOCK):
                content.update(block)
        digest.update(f"{relative.as_posix()}\0{content.hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"
