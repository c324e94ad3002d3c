"""Code snapshots and app roots: what a replica finds under AML_APP_ROOT."""

import json
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from aks_inference_runtime.api.content import code_files, digest_of, directory_files, script_digest
from aks_inference_runtime.api.endpoint import Code, EndpointVersion
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.local.files import copy_tree, remove_tree
from aks_inference_runtime.local.models import ModelStore
from aks_inference_runtime.scoring.server import MODELS_FOLDER, code_folder, entry_script

_MARKS = ".models.json"


class CodeStore:
    """Code as it was when it was declared, by digest. Calls block on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, code: Code) -> Path:
        """Where the snapshot is."""
        return self._root / code.digest.removeprefix("sha256:")

    def put(self, code: Code) -> None:
        """Takes a snapshot unless there is one. Raises InvalidInput when the files are not those of the digest."""
        target = self.folder(code)
        if target.is_dir():
            self._check_entry(code, target)
            return
        if code.source_directory is not None:
            source = Path(code.source_directory)
            if not source.is_dir():
                raise InvalidInput(f"sourceDirectory: {source} is no folder; give the folder of the entry script")
            files = code_files(source)
        else:
            script = Path(code.entry_script)
            if not script.is_file():
                raise InvalidInput(f"entryScript: {script} does not exist; give an existing Python file")
            files = {script.name: script}
        if not files:
            raise InvalidInput(f"sourceDirectory: {code.source_directory} is empty")
        copy_tree(files, target)
        if _digest(code, target) != code.digest:
            shutil.rmtree(target)
            where = code.source_directory or code.entry_script
            raise InvalidInput(f"{where} has other content than was declared; preview and apply again")
        self._check_entry(code, target)

    @staticmethod
    def _check_entry(code: Code, target: Path) -> None:
        name = code.entry_script if code.source_directory else Path(code.entry_script).name
        if not (target / name).is_file() or not (target / name).resolve().is_relative_to(target.resolve()):
            raise InvalidInput(
                f"entryScript: {code.entry_script!r} is not in {code.source_directory or 'the code'}; give its path "
                f"relative to the source directory"
            )


def _digest(code: Code, target: Path) -> str:
    if code.source_directory is not None:
        # What was ignored is not in it, and what says so need not be in it either.
        return digest_of(directory_files(target))
    return script_digest(target / Path(code.entry_script).name)


def builds(base: Path) -> list[Path]:
    """The app roots of a template in their order: `<base>`, `<base>.1`, … as far as they are still there."""
    numbered = [(0, base)] if base.is_dir() else []
    for folder in base.parent.glob(f"{base.name}.*"):
        number = folder.name.removeprefix(f"{base.name}.")
        if number.isdecimal():
            numbered.append((int(number), folder))
    return [folder for _, folder in sorted(numbered)]


def build_app_root(base: Path, version: EndpointVersion, models: ModelStore, codes: CodeStore) -> Path:
    """Lays out code (copied) and models (hard-linked, read-only) unless the newest app root is as it was laid out.

    Never in the place of another one: replicas that run from it may still read. Returns the newest. Raises NotFound
    for a model, ContentMismatch for one that was changed in the store, OSError for the disk.
    """
    present = builds(base)
    if present and unchanged(present[-1]):
        return present[-1]
    number = int(present[-1].name.removeprefix(f"{base.name}.")) if present and present[-1] != base else 0
    target = base.with_name(f"{base.name}.{number + 1}") if present else base
    target.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        folder = temporary / MODELS_FOLDER
        folder.mkdir()
        for reference in version.models:
            models.link(reference, folder / reference.name / str(reference.version))
        (temporary / _MARKS).write_text(json.dumps(_marks(folder)))
        for name, _, _ in os.walk(folder):
            Path(name).chmod(0o555)
        shutil.copytree(codes.folder(version.code), temporary / code_folder(version.code), dirs_exist_ok=True)
        if not (temporary / entry_script(version.code)).is_file():
            raise InvalidInput(f"entryScript: {version.code.entry_script!r} is not in the snapshot of the code")
        temporary.rename(target)
    except BaseException:
        remove_tree(temporary)
        raise
    return target


def remove_unused(base: Path, used: Collection[Path]) -> None:
    """Removes app roots of a template but the newest, unless a replica runs from them."""
    for folder in builds(base)[:-1]:
        if folder not in used:
            remove_tree(folder)


def unchanged(app_root: Path) -> bool:
    """Whether there is an app root whose models are the files that were laid out, as far as the file system tells.

    A replica's script can write to them where modes do not count (root); who starts next must not get that.
    """
    try:
        marks = json.loads((app_root / _MARKS).read_text("utf-8"))
        # What a script puts beside them is its own affair.
        return bool(marks.items() <= _marks(app_root / MODELS_FOLDER).items())
    except (OSError, ValueError, AttributeError):
        return False


def _marks(folder: Path) -> dict[str, str]:
    """What tells whether files are those that they were."""
    found = {}
    for path in folder.rglob("*"):
        if not path.is_dir():
            status = path.lstat()
            mark = f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
            found[path.relative_to(folder).as_posix()] = mark
    return found
