"""docs/aks-rules.md: as the code says, and nothing of the reference missing."""

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import aks_rules  # noqa: E402 - a tool is no package

REFERENCE = Path(os.environ.get("AKS_INFERENCE_RULES", ROOT.parent / "shared" / "reference" / "aks-rules.md"))


def test_the_page_is_what_the_code_says() -> None:
    assert aks_rules.PAGE.read_text("utf-8") == aks_rules.page(), "run tools/aks_rules.py"


def test_nothing_is_missing() -> None:
    assert aks_rules.known_numbers() <= aks_rules.covered_numbers()
    page = aks_rules.page()
    for number in aks_rules.covered_numbers() - set(aks_rules.SECTIONS):
        assert f"\n| {number} |" in page


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference of rules is not here; AKS_INFERENCE_RULES names it")
def test_the_numbers_are_those_of_the_reference() -> None:
    text = REFERENCE.read_text("utf-8")
    rules = set(re.findall(r"^\|\s*([12]\.[0-9]+)\s*\|", text, re.MULTILINE))
    sections = set(re.findall(r"^## ([0-9]+) ", text, re.MULTILINE))
    assert rules | (sections - set(aks_rules.NUMBERED)) == aks_rules.known_numbers()


def test_the_page_of_hosts_is_what_the_code_says() -> None:
    import hosts

    assert hosts.PAGE.read_text("utf-8") == hosts.page(), "run tools/hosts.py"
    parts = {part.split(" (")[0].strip(): part for part in hosts.page().split("\n## ")[1:]}
    signing_in = ("login.microsoftonline.com", "login.microsoftonline.us", "login.chinacloudapi.cn")
    for (cloud, part), host in zip(parts.items(), signing_in, strict=True):
        assert [one for one in signing_in if f"`{one}`" in part] == [host], cloud
