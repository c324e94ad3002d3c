"""Which files of a folder go into an image: none that it ignores, none from outside of it, and not too many."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from aks_inference_runtime.api.content import digest_of
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.ignoring import Ignored, ignored_of
from aks_inference_runtime.api.limits import AZURE_ML, ContextLimits

OFFENDERS = 5
TIMES = 10
"""Beyond its limit a folder is looked at up to this many times that: enough to name what fills it. / has no end."""
PROBLEMS = 20
"""Said of a folder: who gave the wrong one has thousands."""


def context_files(folder: Path, limits: ContextLimits = AZURE_ML) -> dict[str, Path]:
    """The files by their relative names with forward slashes, sorted. Raises InvalidInput with all that is wrong.

    A link to a file inside the folder counts as that file; one that leaves it is refused, as are linked folders.
    """
    most = TIMES * limits.max_files
    problems: list[str] = []
    try:
        if not folder.is_dir():
            raise InvalidInput(f"{folder} is not a folder; give the folder with the entry script")
        walked = _walk(folder, folder.resolve(), ignored_of(folder), problems)
        found = list(itertools.takewhile(lambda _: len(problems) <= most, itertools.islice(walked, most + 1)))
        files = dict(sorted(found))
        over = list(_over(files, limits, whole=len(found) <= most))
    except OSError as error:
        raise InvalidInput(f"{error.filename or folder}: cannot be read ({error.strerror or error})") from None
    if problems or over:
        raise InvalidInput("\n".join([*over, *_few(problems)]))
    return files


_RIGHTS = "give yourself the right to or ignore it"


def _few(problems: Sequence[str]) -> Iterator[str]:
    yield from problems[:PROBLEMS]
    if len(problems) > PROBLEMS:
        yield f"{len(problems) - PROBLEMS:,} more files and folders cannot be taken; ignore them or give another folder"


def content_digest(folder: Path, limits: ContextLimits = AZURE_ML, dockerfile: str | None = None) -> str:
    """`sha256:<hex>` over the names and contents of what goes into the image; its limits are told when it is built.
    `limits`: those, where they are raised; `dockerfile`: counts also where it is ignored, or outside."""
    most = ContextLimits(max(TIMES * AZURE_ML.max_mb, limits.max_mb), max(TIMES * AZURE_ML.max_files, limits.max_files))
    files = context_files(folder, most)
    return digest_of(files if dockerfile is None else {**files, dockerfile: folder / dockerfile})


def _walk(folder: Path, root: Path, ignored: Ignored, problems: list[str]) -> Iterator[tuple[str, Path]]:
    def closed(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read ({error.strerror}); {_RIGHTS}")

    for current, directories, names in os.walk(folder, onerror=closed):
        here = Path(current)
        relative = PurePosixPath(here.relative_to(folder).as_posix())
        kept = []
        for name in sorted(directories):
            path = (relative / name).as_posix()
            if ignored.folder(path):
                continue
            if (here / name).is_symlink():
                problems.append(f"{here / name}: is a link to a folder; put the folder itself there or ignore it")
            else:
                kept.append(name)
        directories[:] = kept
        for name in sorted(names):
            path = (relative / name).as_posix()
            if not ignored.file(path):
                try:
                    problem = _problem(here / name, root)
                except OSError as error:
                    problem = f"{here / name}: cannot be read ({error.strerror}); {_RIGHTS}"
                if problem:
                    problems.append(problem)
                else:
                    yield path, here / name


def _problem(path: Path, root: Path) -> str:
    # Not Path.resolve: it raises another error for links in a circle.
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
        return (
            f"{path}: is a link that leaves the folder (to {path.readlink()}); put the file itself there or ignore it"
        )
    if not path.is_file():
        return f"{path}: is not a regular file; remove it or ignore it"
    if not os.access(path, os.R_OK):
        return f"{path}: cannot be read; {_RIGHTS}"
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return f"{str(path)!r}: has a name that is not UTF-8; rename it or ignore it"
    return ""


def _over(files: Mapping[str, Path], limits: ContextLimits, *, whole: bool) -> Iterator[str]:
    """`whole`: whether these are all of its files."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total = sum(sizes.values())
    at_least = "" if whole else "at least "
    mend = "name what is not needed in .amlignore (gitignore patterns), or raise"
    if total > limits.max_bytes:
        largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:OFFENDERS]
        named = ", ".join(f"{name} ({_mb(size)})" for name, size in largest)
        held = f"{at_least}{_mb(total)}, more than {_mb(limits.max_bytes)}"
        yield f"the folder holds {held}: largest are {named}; {mend} max_mb"
    if len(files) > limits.max_files:
        folders = Counter(name.partition("/")[0] if "/" in name else "." for name in files)
        named = ", ".join(f"{name} ({count} files)" for name, count in folders.most_common(OFFENDERS))
        count = f"{at_least}{len(files)} files"
        yield f"the folder holds {count}, more than {limits.max_files}: most are in {named}; {mend} max_files"


def _mb(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MB"
