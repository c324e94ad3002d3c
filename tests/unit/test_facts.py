"""The compiled facts: as the tables have them, and as the loaders give them."""

import importlib.util
import sys
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest

from aks_inference.facts import (
    host_rows,
    price_list,
    region_named,
    regions,
    role_id,
    size_note,
    version_calendar,
)

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT.parent / "shared" / "data"
COMPILED = ROOT / "components/aks_inference/facts/data"


def compiler() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compile_facts", ROOT / "tools/compile_facts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not TABLES.is_dir(), reason="the tables that the facts are compiled from are not on this machine")
def test_compiled_facts_are_those_of_the_tables() -> None:
    compiled = compiler().compile_all(TABLES)
    assert compiled.keys() == {path.name for path in COMPILED.iterdir()}
    for name, text in compiled.items():
        assert text == (COMPILED / name).read_text(encoding="utf-8"), name


def test_compiler_writes_what_it_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not TABLES.is_dir():
        pytest.skip("the tables that the facts are compiled from are not on this machine")
    monkeypatch.setattr(sys, "argv", ["compile_facts.py", str(TABLES), "--into", str(tmp_path)])
    compiler().main()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in COMPILED.iterdir()}


def test_package_stays_small() -> None:
    assert sum(path.stat().st_size for path in COMPILED.iterdir()) < 1_000_000


def test_every_table_names_source_and_day() -> None:
    assert price_list().source
    assert price_list().date == date(2026, 6, 18)
    assert version_calendar().source
    assert version_calendar().date <= date(2026, 11, 21)


@pytest.mark.parametrize(
    ("size", "region", "price"),
    [
        ("Standard_D3_v2", "westeurope", 0.272),
        ("standard_d3_V2", "westeurope", 0.272),
        ("Standard_D3_v2", "atlantis", None),
        ("Standard_Nothing", "westeurope", None),
    ],
)
def test_price(size: str, region: str, price: float | None) -> None:
    assert price_list().hourly(size, region) == price


def test_prices_are_sound() -> None:
    prices = price_list()
    for size, row in prices.usd_per_hour.items():
        assert len(row) == len(prices.regions) == 18
        assert all(price is None or 0 < price < 500 for price in row), size


def test_regions() -> None:
    europe = region_named("West Europe")
    assert europe is not None
    assert (europe.name, europe.paired_region, europe.zones) == ("westeurope", "northeurope", True)
    assert region_named("westeurop") is None
    for region in regions().values():
        assert region.paired_region is None or region.paired_region in regions(), region.name
        assert region.cloud in {"AzureCloud", "AzureUSGovernment", "AzureChinaCloud"}


def test_zones_are_not_guessed() -> None:
    government = region_named("usgovvirginia")
    assert government is not None
    assert government.zones is None


def test_versions_follow_each_other() -> None:
    versions = list(version_calendar().versions.values())
    assert versions == sorted(versions, key=lambda version: version.minor)
    for version in versions:
        assert version.preview <= version.ga < version.end_of_life < version.lts_end_of_life
    assert version_calendar().versions[1, 34].end_of_life == date(2026, 11, 30)
    assert version_calendar().versions[1, 36].ga == date(2026, 6, 30)
    assert version_calendar().versions[1, 36].name == "1.36"


def test_roles() -> None:
    assert role_id("AcrPull") == "7f951dda-4ed3-4680-a7ca-43fe172d538d"
    with pytest.raises(KeyError):
        role_id("Emperor")


def test_size_notes() -> None:
    assert size_note("Standard_D3_v2").retirement == date(2028, 5, 1)
    assert size_note("STANDARD_D4PS_V5").arm64
    assert size_note("Standard_D4s_v5").retirement is None


def test_hosts_have_every_cloud() -> None:
    rows = host_rows()
    assert {row.cloud for row in rows} == {"AzureCloud", "AzureUSGovernment", "AzureChinaCloud"}
    assert all(row.host and row.port in {80, 443} and row.source for row in rows)
    assert any(row.cloud == "AzureChinaCloud" and row.host == "data.policy.azure.cn" for row in rows)
