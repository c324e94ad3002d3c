"""Requirements of pip in canonical form: spelling, order, whitespace and comments have no meaning."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import Specifier
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from aks_inference_runtime.images.findings import Findings
from aks_inference_runtime.packages.settings import SHORT_OPTIONS

MEND = "write a requirement such as scikit-learn==1.9.0"
TAKEN_OPTIONS = frozenset({"--index-url", "--extra-index-url", "--find-links", "--pre"})
"""Options with a meaning for every builder; others (editable, constraints, no-binary) have none without a checkout."""
_INDEX = "--index-url "
_HASH = re.compile(r"\s--hash[= ](sha256:[0-9a-fA-F]{64}|sha384:[0-9a-fA-F]{96}|sha512:[0-9a-fA-F]{128})(?=\s|$)")
_FRAGMENT = re.compile(r"(sha256|sha384|sha512|md5)=([0-9a-fA-F]+)$")
_COMMENT = re.compile(r"(^|\s)#.*$")


def canonical_requirement(text: str) -> str:
    """The canonical form of one requirement, with its hashes. Raises InvalidRequirement."""
    hashes = sorted({match.lower() for match in _HASH.findall(text)})
    requirement = Requirement(_HASH.sub("", text).strip())
    extras = ",".join(sorted(canonicalize_name(extra) for extra in requirement.extras))
    name = canonicalize_name(requirement.name) + (f"[{extras}]" if extras else "")
    if requirement.url:
        body = f"{name} @ {requirement.url}"
    else:
        body = name + ",".join(sorted(_specifier(item) for item in requirement.specifier))
    marker = f" ; {requirement.marker}" if requirement.marker else ""
    return body + marker + "".join(f" --hash={value}" for value in hashes)


def requirement_name(text: str) -> str:
    """The canonical name of the package that a canonical requirement asks for."""
    return canonicalize_name(re.split(r"[\[@ ;<>=!~]", text, maxsplit=1)[0])


def given_hashes(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """`sha256:…` of a canonical requirement: those of `--hash`, and that of its address (`#sha256=…`)."""
    options = frozenset(match.lower() for match in _HASH.findall(text))
    address = text.partition(" @ ")[2].split(" ", maxsplit=1)[0]
    found = (_FRAGMENT.match(one) for one in urlsplit(address).fragment.split("&"))
    return options, frozenset(f"{one[1]}:{one[2].lower()}" for one in found if one)


def contradictions(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of canonical requirements that no version is: an exact one, and one that excludes it. What holds on some
    machines only is left to pip."""
    read = [(text, Requirement(_HASH.sub("", text))) for text in packages]
    plain = [(text, one) for text, one in read if one.marker is None and one.url is None]
    for (first, one), (second, other) in combinations(plain, 2):
        if canonicalize_name(one.name) == canonicalize_name(other.name):
            both = one.specifier & other.specifier
            exact = [item.version for item in both if item.operator == "==" and not item.version.endswith(".*")]
            if exact and not any(both.contains(version, prereleases=True) for version in exact):
                yield first, second


def _specifier(item: Specifier) -> str:
    version = item.version
    if item.operator != "===" and not version.endswith(".*"):
        try:
            version = str(Version(version))
        except InvalidVersion:
            # Kept as written: packaging accepts a few old forms that it cannot spell in another way.
            return f"{item.operator}{version}"
    return f"{item.operator}{version}"


def read_requirements(
    lines: Iterable[str], at: str, base: Path, findings: Findings, seen: frozenset[Path] = frozenset()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Canonical requirements and options from the lines of a requirements file or of a conda file's `pip` list.

    `at`: how problems name the place; `base`: what `-r FILE` is relative to; `seen`: files that are being read.
    """
    packages: set[str] = set()
    options: set[str] = set()
    for number, line in _logical(lines):
        place = f"{at}[{number}]"
        option, _, rest = line.replace("=", " ", 1).partition(" ") if line.startswith("-") else ("", "", "")
        if option in {"-r", "--requirement"} or (option.startswith("-r") and not option.startswith("--")):
            name = (option.removeprefix("-r") if option != "--requirement" else "") + rest
            more, others = _nested(name.strip(), place, base, findings, seen)
            packages.update(more)
            options.update(others)
        elif option:
            _option(SHORT_OPTIONS.get(option, option), rest.strip(), place, findings, options)
        else:
            _requirement(line, place, findings, packages)
    _one_index(options, at, findings)
    return tuple(sorted(packages)), _ordered_options(options)


def _ordered_options(options: Iterable[str]) -> tuple[str, ...]:
    """In canonical order: pip forgets the further indexes that stand before `--index-url`."""
    return tuple(sorted(set(options), key=lambda option: (not option.startswith(_INDEX), option)))


def merged_options(lists: Sequence[Iterable[str]], at: str, findings: Findings) -> tuple[str, ...]:
    """The options of several lists; what one of them has wrong by itself has been said of it."""
    if all(len(_indexes(each)) < 2 for each in lists):
        _one_index(chain.from_iterable(lists), at, findings)
    return _ordered_options(chain.from_iterable(lists))


def _indexes(options: Iterable[str]) -> list[str]:
    return sorted({option.removeprefix(_INDEX) for option in options if option.startswith(_INDEX)})


def _one_index(options: Iterable[str], at: str, findings: Findings) -> None:
    """pip would take the last `--index-url`; a set of options has none."""
    given = _indexes(options)
    if len(given) > 1:
        rule = f"names {len(given)} indexes by --index-url ({', '.join(given)})"
        findings.add(at, rule, "keep one, and give the others as --extra-index-url")


def _logical(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines without comments, continuations joined, with the index of the first."""
    pending, start = "", 0
    for number, raw in enumerate(lines):
        start = start if pending else number
        continued = raw.rstrip("\r\n").endswith("\\")
        text = _COMMENT.sub("", raw.rstrip("\r\n").removesuffix("\\") if continued else raw).strip()
        pending = f"{pending} {text}".strip()
        if pending and not continued:
            yield start, pending
            pending = ""
    if pending:
        yield start, pending


def _requirement(line: str, place: str, findings: Findings, packages: set[str]) -> None:
    try:
        canonical = canonical_requirement(line)
    except InvalidRequirement as error:
        findings.add(place, f"is not a requirement: {str(error).splitlines()[0]}", MEND, line)
        return
    if _has_secret(canonical.partition(" @ ")[2]):
        findings.add(place, "carries credentials in its URL, which would stay in the image", "use a private index")
        return
    packages.add(canonical)


def _option(option: str, value: str, place: str, findings: Findings, options: set[str]) -> None:
    if option not in TAKEN_OPTIONS:
        rule = "is an option of pip that an image cannot take"
        findings.add(place, rule, f"leave it out; taken are {', '.join(sorted(TAKEN_OPTIONS))}", option)
    elif _has_secret(value):
        rule = "carries credentials in its URL, which would stay in the image"
        findings.add(place, rule, "give them to pip by its configuration file or keyring", option)
    elif option == "--pre" or value:
        options.add(f"{option} {value.rstrip('/')}".strip())
    else:
        findings.add(place, "has no value", f"write {option} URL", option)


def _has_secret(url: str) -> bool:
    return "@" in urlsplit(url.split(" ", maxsplit=1)[0]).netloc.removeprefix("git@")


def _nested(
    name: str, place: str, base: Path, findings: Findings, seen: frozenset[Path]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    path = (base / name).resolve()
    if path in seen:
        return (), ()
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        findings.add(place, f"cannot be read ({type(error).__name__})", "give the path of a requirements file", name)
        return (), ()
    return read_requirements(text.splitlines(), f"{place} {name}", path.parent, findings, seen | {path})
