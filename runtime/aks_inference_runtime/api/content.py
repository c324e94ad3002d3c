"""What files are called in a store and what identifies them, for everybody who names, stores or compares them."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.ignoring import BYTE_CODE, Ignored, ignored_of

_ONLY_BYTE_CODE = Ignored(folders=frozenset({BYTE_CODE}))
_CHUNK = 1024 * 1024


def file_digest(path: Path) -> str:
    """`sha256:<hex>` of one file's content."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        # A small file needs no large buffer, which is written to before it is read into.
        buffer = memoryview(bytearray(min(_CHUNK, os.fstat(file.fileno()).st_size + 1)))
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return f"sha256:{digest.hexdigest()}"


def file_digests(files: Mapping[str, Path], workers: int | None = None) -> dict[str, str]:
    """`sha256:<hex>` of many files by name, as many at a time as there are cores (or `workers`)."""
    # Loaded here: it brings logging and more, and entry scripts are read without it.
    from concurrent.futures import ThreadPoolExecutor

    # The largest first: else the last one may leave the other cores idle.
    order = sorted(files, key=lambda name: -files[name].stat().st_size)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        found = dict(zip(order, pool.map(file_digest, (files[name] for name in order)), strict=True))
    return {name: found[name] for name in files}


def combined_digest(files: Mapping[str, str]) -> str:
    """`sha256:<hex>` over relative names and digests (`sha256:<hex>`), whatever their order."""
    text = "".join(f"{name}\0{digest}\n" for name, digest in sorted(files.items()))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def digest_of(files: Mapping[str, Path]) -> str:
    """`sha256:<hex>` over names and contents."""
    return combined_digest({name: file_digest(path) for name, path in files.items()})


def directory_files(directory: Path) -> dict[str, Path]:
    """All files of a folder by their relative names with forward slashes. Raises InvalidInput for linked folders."""
    return dict(_walk(directory, _ONLY_BYTE_CODE))


def code_files(directory: Path) -> dict[str, Path]:
    """As `directory_files`, of an entry script's folder: without what it ignores."""
    return dict(_walk(directory, ignored_of(directory)))


def _walk(directory: Path, ignored: Ignored) -> Iterator[tuple[str, Path]]:
    def closed(error: OSError) -> None:
        # By itself a walk leaves out what it may not read. A folder that is not there is the checks' to tell: what was
        # deployed from it can be removed all the same.
        if isinstance(error, FileNotFoundError):
            return
        raise InvalidInput(f"{error.filename} cannot be read: {error.strerror}; give yourself the right to")

    for current, names, files in os.walk(directory, onerror=closed):
        folder = Path(current)
        below = folder.relative_to(directory)
        names[:] = sorted(name for name in names if not ignored.folder((below / name).as_posix()))
        for name in names:
            if (folder / name).is_symlink():
                raise InvalidInput(f"{folder / name} is a link to a folder; put the folder itself there")
        for name in sorted(files):
            path, relative = folder / name, (below / name).as_posix()
            if ignored.file(relative):
                continue
            if not path.is_file():
                raise InvalidInput(f"{path} is not a regular file; remove it or the broken link")
            try:
                name.encode()
            except UnicodeEncodeError:
                raise InvalidInput(f"{str(path)!r} has a name that is not UTF-8; rename it") from None
            yield relative, path


def directory_digest(directory: Path) -> str:
    """`sha256:<hex>` over what counts of an entry script's folder: the `digest` of a script with its folder."""
    return digest_of(code_files(directory))


def script_digest(path: Path) -> str:
    """`sha256:<hex>` of an entry script that stands alone, by its base name and content."""
    return digest_of({path.name: path})


def model_files(source: Path, child_paths: Sequence[str] = ()) -> dict[str, Path]:
    """A model's stored names → files. Raises InvalidInput with all that is missing.

    A file is stored under its base name, a folder as `<folder name>/<relative>`, chosen children in the same layout
    (source: azureml-core 1.61, Model.register).
    """
    if source.is_file():
        if child_paths:
            raise InvalidInput(f"childPaths: {source} is a file; child paths choose among the files of a folder")
        return {source.name: source}
    if not source.is_dir():
        rule = "is not a regular file or folder" if source.exists() else "does not exist"
        raise InvalidInput(f"path: {source} {rule}; give an existing file or folder")
    everything = directory_files(source)
    chosen = _children(source, everything, child_paths) if child_paths else everything
    if not chosen:
        raise InvalidInput(f"path: {source} holds no file; put the model's files there")
    return {f"{source.name}/{name}": path for name, path in chosen.items()}


def _children(source: Path, everything: Mapping[str, Path], child_paths: Sequence[str]) -> dict[str, Path]:
    chosen: dict[str, Path] = {}
    problems = []
    for child in child_paths:
        name = Path(os.path.normpath(child)).as_posix()
        found = {key: path for key, path in everything.items() if key == name or key.startswith(f"{name}/")}
        if not found:
            rule = "holds no file" if (source / name).is_dir() else f"does not exist in {source}"
            problems.append(f"childPaths: {child!r} {rule}; name files, or folders that hold some")
        chosen |= found
    if problems:
        raise InvalidInput("\n".join(problems))
    return chosen
