"""Which files of a folder are content: `.amlignore`, else `.gitignore`, of its root says what is none.

Rules: azureml-core 1.61 (reference: azureml-v1.md 6.4): one ignore file, only the one in the root, gitignore patterns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from aks_inference_runtime.api.errors import InvalidInput

IGNORE_FILES = (".amlignore", ".gitignore")
BYTE_CODE = "__pycache__"
"""What Python writes beside a script when it runs: no content of the author's."""
HISTORY = ".git"
"""A folder; in a further work tree of a repository a file, which says where that is."""
ALWAYS_IGNORED = frozenset({HISTORY, BYTE_CODE})
"""Never content of a project."""
Matches = Callable[[str], bool]


@dataclass(frozen=True)
class Ignored:
    """What of a folder is no content. Paths are relative to it, with forward slashes."""

    matches: Matches | None = None
    """By the patterns of its file; None: it has none."""
    folders: frozenset[str] = ALWAYS_IGNORED
    """Names of folders that never are content."""

    def file(self, path: str) -> bool:
        """Whether a file is none of the content."""
        history = HISTORY in self.folders and path.rpartition("/")[2] == HISTORY
        return history or (self.matches is not None and self.matches(path))

    def folder(self, path: str) -> bool:
        """Whether nothing in a folder is content."""
        return path.rpartition("/")[2] in self.folders or self.file(f"{path}/")


def ignored_of(folder: Path) -> Ignored:
    """What a folder's file says. Raises InvalidInput for one that is no list of patterns, OSError."""
    for name in IGNORE_FILES:
        path = folder / name
        if path.is_file():
            try:
                return Ignored(_patterns(path.read_text("utf-8")))
            except (UnicodeDecodeError, ValueError) as error:
                raise InvalidInput(f"{path}: is not a list of patterns ({error}); mend the file") from None
    return Ignored()


@lru_cache(maxsize=64)
def _patterns(text: str) -> Matches:
    # Loaded here: most folders have no such file, and entry scripts are read at each preview.
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(text.splitlines()).match_file


def why_absent(folder: Path, script: str) -> str:
    """Why a script is none of a folder's files: the rule, for people."""
    path = PurePosixPath(script)
    inside = not path.is_absolute() and ".." not in path.parts
    ignored = inside and (folder / script).is_file()
    return "is ignored by .amlignore or .gitignore" if ignored else f"is not in {folder}"
