"""`aks-inference report --preview FILE`: a preview as Markdown for a pull request, or as JSON."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aks_inference.report import NotAPreview, NotAUsage, markdown, report, usages_of


def run(arguments: Sequence[str]) -> int:
    """The command. 0: done; 1: the file is no preview; 2: wrong usage."""
    parser = argparse.ArgumentParser(
        prog="aks-inference report",
        description="What a preview changes, in the order in which a reviewer wants it: counts, replacements, traffic, "
        "capacity, cost, checks, what is not known yet, all differences.",
    )
    parser.add_argument(
        "--preview", required=True, metavar="FILE", help="output of `pulumi preview --json`; - is stdin"
    )
    parser.add_argument("--json", action="store_true", help="as JSON instead of Markdown")
    parser.add_argument(
        "--quota",
        metavar="FILE",
        help="output of `az vm list-usage -l <region> -o json`: what is there",
    )
    given = parser.parse_args(arguments)
    try:
        usages = usages_of(_usage(given.quota)) if given.quota else []
    except NotAUsage as error:
        print(f"error: {given.quota}: {error}", file=sys.stderr)
        return 1
    try:
        found = report(_read(given.preview), datetime.now(UTC).date(), usages)
    except NotAPreview as error:
        print(f"error: {given.preview}: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False, indent=2))
    else:
        print(markdown(found))
    return 0


def _usage(name: str) -> object:
    try:
        return json.loads(Path(name).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NotAUsage(f"cannot be read: {error}") from None
    except ValueError as error:
        raise NotAUsage(f"is no JSON: {error}") from None


def _read(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotAPreview(f"cannot be read: {error}") from None
    start = text.find("{")
    try:
        # The engines may say something before the JSON.
        value = json.loads(text[start:]) if start >= 0 else None
    except ValueError as error:
        raise NotAPreview(f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise NotAPreview("holds no object")
    return value
