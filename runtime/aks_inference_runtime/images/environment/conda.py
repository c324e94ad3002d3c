"""Conda match specifications in canonical form (conda's documentation, "Package match specifications")."""

import re

_SPEC = re.compile(
    r"(?:(?P<channel>[^\s\[\]]+)::)?(?P<name>[A-Za-z0-9_.*-]+?)\s*"
    r"(?P<rest>(?:[=<>!~ ].*?)?)(?P<bracket>\[[^\[\]]*\])?"
)
_BRACKET = re.compile(r"\s*(?P<key>\w+)\s*=\s*(?:'(?P<a>[^']*)'|\"(?P<b>[^\"]*)\"|(?P<c>[^,'\"\s]+))\s*(?:,|$)")
_ORDERED = re.compile(r"\s*([<>=!~]=?|={1,2})\s*")


def canonical_spec(text: str) -> str:
    """The canonical form: `channel::name version build[key=value]`. Raises ValueError with the reason.

    `numpy=1.21`, `numpy = 1.21` and `numpy=1.21.*` are one; `numpy==1.21` and `numpy 1.21` (exactly) another.
    """
    match = _SPEC.fullmatch(text.split("#", maxsplit=1)[0].strip())
    if match is None:
        raise ValueError("is not a conda package specification")
    name, rest = match["name"].lower(), match["rest"].strip()
    brackets = _brackets(match["bracket"] or "")
    version, build = _version_and_build(rest)
    version = _canonical_version(brackets.pop("version", "")) or version
    build = brackets.pop("build", build)
    channel = brackets.pop("channel", match["channel"] or "")
    tail = f"[{','.join(f'{key}={value}' for key, value in sorted(brackets.items()))}]" if brackets else ""
    return (f"{channel}::" if channel else "") + " ".join(part for part in (name, version, build) if part) + tail


def spec_name(spec: str) -> str:
    """The name of the package in a canonical specification."""
    return re.split(r"[ \[]", spec.rpartition("::")[2], maxsplit=1)[0]


def spec_version(spec: str) -> str:
    """The version part of a canonical specification; empty when any will do."""
    parts = spec.rpartition("::")[2].split(" ")
    return parts[1].split("[")[0] if len(parts) > 1 else ""


def _brackets(text: str) -> dict[str, str]:
    body = text.strip("[] ")
    found = {m["key"].lower(): m["a"] or m["b"] or m["c"] or "" for m in _BRACKET.finditer(body)}
    if body and not found:
        raise ValueError(f"{text} is not a list of key=value")
    return found


def _version_and_build(rest: str) -> tuple[str, str]:
    if not rest:
        return "", ""
    # name=version=build is exact, as is `name version build`; a single = alone is a prefix.
    three = re.fullmatch(r"=?\s*([^=<>!~,|\s]+)\s*=\s*([^=\s]+)", rest) if rest.startswith("=") else None
    if three and not rest.startswith("=="):
        return f"=={three[1]}", three[2]
    spaced = re.fullmatch(r"([^=<>!~,|\s]+)\s+(\S+)", rest)
    if spaced:
        return f"=={spaced[1]}", spaced[2]
    return _canonical_version(rest), ""


def _canonical_version(text: str) -> str:
    groups = []
    for group in text.split("|"):
        parts = sorted({_constraint(part) for part in group.split(",") if part.strip()})
        groups.append(",".join(parts))
    return "|".join(sorted(group for group in groups if group))


def _constraint(part: str) -> str:
    text = _ORDERED.sub(r"\1", part.strip()).lower()
    if " " in text:
        raise ValueError(f"{part.strip()!r} is not a version")
    if text.startswith("=") and not text.startswith("=="):
        return text.removesuffix(".*").removesuffix("*")
    if re.match(r"[0-9a-z]", text):
        return f"={text[:-2]}" if text.endswith(".*") else text if "*" in text else f"=={text}"
    return text
