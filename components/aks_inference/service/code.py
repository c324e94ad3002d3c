"""The entry script: it exists, it parses, it has `init` and `run` as the scoring server calls them.

Rules: azureml-core 1.61 (InferenceConfig) and azureml-inference-server-http 1.5; reference: azureml-v1.md 4.4, 4.8.
"""

import ast
import keyword
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from aks_inference.findings import Finding, Severity
from aks_inference.findings import Path as PropertyPath
from aks_inference.service.bindings import Bound, bindings_of
from aks_inference.service.folders import Content, Mark, TooMuch, content_of, mark_of
from aks_inference_runtime.api.endpoint import Code
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.ignoring import why_absent
from aks_inference_runtime.api.limits import AZURE_ML, MEGABYTE, ContextLimits

SCHEMA_DECORATORS = ("input_schema", "output_schema")
MEND_LARGE = "give a folder of its own to what the script needs, or name the rest in .amlignore"
ENTRY: PropertyPath = ("entry_script",)
SOURCE: PropertyPath = ("source_directory",)


def absolute(path: str) -> Path:
    """A path as given, from the program's working directory; links are kept."""
    return _path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - resolve() would follow links


@lru_cache(maxsize=1024)
def _path(text: str) -> Path:
    """Services of a program name the same few: taking a path apart costs more than looking at its file."""
    return Path(text)


@lru_cache(maxsize=1024)
def _within(source: Path, entry_script: str) -> tuple[Path, str | None]:
    """The script, and its name below its folder; None: it lies outside."""
    script = Path(os.path.normpath(source / entry_script))
    return script, script.relative_to(source).as_posix() if script.is_relative_to(source) else None


def read_code(entry_script: str, source_directory: str | None) -> tuple[Code | None, list[Finding]]:
    """The code of a version, and what is wrong with it. Reads the files."""
    read, findings = read_content(entry_script, source_directory)
    return (None if read is None else read[0]), findings


def read_content(
    entry_script: str, source_directory: str | None, limits: ContextLimits = AZURE_ML
) -> tuple[tuple[Code, Content] | None, list[Finding]]:
    """The code of a version with what its files come to, and what is wrong with it. Reads the files."""
    name: str | None
    if source_directory is not None:
        source = absolute(source_directory)
        if not os.path.isdir(source):  # noqa: PTH112 - Path.is_dir() raises where a name is too long
            rule = "is not a directory" if os.path.exists(source) else f"does not exist ({source})"  # noqa: PTH110
            return None, [Finding(SOURCE, rule, "give the folder that holds the entry script", source_directory)]
        script, name = _within(source, entry_script)
        if name is None:
            rule = f"lies outside of @source_directory {source_directory}"
            return None, [Finding(ENTRY, rule, "give the path relative to it", entry_script)]
    else:
        source, script = None, absolute(entry_script)
        name = str(script)
    if findings := _script_findings(script, entry_script):
        return None, list(findings)
    try:
        content = content_of(str(source) if source else None, str(script))
    except TooMuch as error:
        return None, [Finding(SOURCE, str(error), MEND_LARGE, source_directory)]
    except (InvalidInput, OSError) as error:
        mend = f"make every file readable, or {MEND_LARGE}" if source else "make it readable"
        return None, [Finding(SOURCE if source else ENTRY, str(error), mend)]
    if source is not None and name not in content.names:
        return None, [Finding(ENTRY, why_absent(source, name), "take it out of that file", entry_script)]
    code = Code(source_directory=str(source) if source else None, entry_script=name, digest=content.digest)
    return (code, content), list(_large(source_directory, content, limits)) if source else []


def _large(given: str | None, content: Content, limits: ContextLimits) -> Iterator[Finding]:
    """Beyond the limits something is probably in the wrong place."""
    files, size = len(content.names), content.size_bytes
    if files > limits.max_files or size > limits.max_bytes:
        rule = f"holds {files:,} files, {size / MEGABYTE:,.0f} MB; all of them are copied for each change"
        yield Finding(SOURCE, rule, f"{MEND_LARGE}, or raise @max_files and @max_mb", given, Severity.WARNING)


def _script_findings(script: Path, given: str) -> Sequence[Finding]:
    if not os.path.isfile(script):  # noqa: PTH113 - Path.is_file() raises where a name is too long
        return [Finding(ENTRY, f"does not exist ({script})", "give a Python file with init() and run()", given)]
    return _findings_of(mark_of(str(script)), given)


@lru_cache(maxsize=256)
def _findings_of(mark: Mark, given: str) -> Sequence[Finding]:
    return tuple(_read_script(Path(mark[0]), given))


def _read_script(script: Path, given: str) -> Iterator[Finding]:
    if script.suffix != ".py":
        yield Finding(ENTRY, "does not end in .py", "give a Python file", given)
        return
    if not script.stem.isidentifier() or keyword.iskeyword(script.stem):
        rule = f"cannot be imported: {script.stem!r} is not a Python name"
        yield Finding(ENTRY, rule, "rename the file, for example to score.py", given)
    try:
        content = script.read_bytes()
        if b"\0" in content:
            # Python versions say it in different ways, none with a line.
            yield Finding(ENTRY, "is no text: it holds null bytes", "give a Python source file in UTF-8", given)
            return
        tree = ast.parse(content, filename=str(script))
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        rule = f"does not parse: {where}{error.msg}"
        yield Finding(ENTRY, rule, "mend the script", given)
    except (OSError, ValueError) as error:
        yield Finding(ENTRY, f"cannot be read: {error}", "give a Python source file in UTF-8", given)
    else:
        yield from contract_findings(tree, given)


def contract_findings(tree: ast.Module, given: str) -> Iterator[Finding]:
    """Whether `init` and `run` are there and can be called. What the text does not tell is believed."""
    bindings = bindings_of(tree)
    for name in ("init", "run"):
        if not bindings.may_have(name):
            yield Finding(ENTRY, f"has no function {name}()", f"define {name} in the script", given)
            continue
        # Of several that it may be in the end one that can be called is enough.
        possible = [list(_callable(name, bound, given)) for bound in bindings.names.get(name, ())]
        if possible and all(possible) and name not in bindings.elsewhere:
            yield from possible[-1]


def _callable(name: str, bound: Bound, given: str) -> Iterator[Finding]:
    if isinstance(bound, ast.AsyncFunctionDef):
        yield Finding(ENTRY, f"{name}() is async", f"define {name} with def: the server does not await it", given)
    elif isinstance(bound, ast.FunctionDef):
        yield from (_init_findings if name == "init" else _run_findings)(bound, given)


def _init_findings(function: ast.FunctionDef, given: str) -> Iterator[Finding]:
    arguments = function.args
    required = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    required += sum(default is None for default in arguments.kw_defaults)
    if required > 0:
        yield Finding(ENTRY, "init() takes arguments; it is called without", "give init no parameters", given)


def _run_findings(function: ast.FunctionDef, given: str) -> Iterator[Finding]:
    arguments = function.args
    wrong = [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    wrong += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    wrong += [f"positional-only {argument.arg}" for argument in arguments.posonlyargs]
    if wrong and not function.decorator_list:
        rule = f"run() has {', '.join(wrong)}; the server passes arguments by name"
        yield Finding(ENTRY, rule, "use plain parameters", given)
    yield from _decorator_findings(function, given)
    data = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    if not [name for name in data if name != "request_headers"] and not wrong and not function.decorator_list:
        yield Finding(ENTRY, "run() takes no data", "give run a parameter for the request's body", given)


def _decorator_findings(function: ast.FunctionDef, given: str) -> Iterator[Finding]:
    """The server ends at the start with raw access and a schema (of the input or the output) on one run()."""
    lines: dict[str, int] = {}
    for decorator in function.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        lines.setdefault(name, decorator.lineno)
    for schema in SCHEMA_DECORATORS:
        if "rawhttp" in lines and schema in lines:
            at = f"line {max(lines['rawhttp'], lines[schema])}"
            rule = f"run() has both `rawhttp` and `{schema}` ({at}); the server refuses to start with them"
            yield Finding(ENTRY, rule, "keep one of them: raw access to the request, or a schema", given)
