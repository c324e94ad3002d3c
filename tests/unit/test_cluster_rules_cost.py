"""Monthly cost from the compiled price list."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference.cluster_rules import Pool, cost_change, monthly_cost
from aks_inference.facts import PriceList, price_list

PRICES = PriceList(
    "a list", date(2026, 6, 18), ("westeurope",), {"standard_d3_v2": (0.25,), "standard_nc4as_t4_v3": (None,)}
)
D3 = Pool("inference", "Standard_D3_v2", count=3)
MONTH = 730


@pytest.mark.parametrize(
    ("pool", "lowest", "highest"),
    [
        (D3, 3 * 0.25 * MONTH, 3 * 0.25 * MONTH),
        (replace(D3, count=0), 0.0, 0.0),
        (replace(D3, autoscale=True, min_count=1, max_count=5), 0.25 * MONTH, 5 * 0.25 * MONTH),
        (replace(D3, autoscale=True, min_count=0, max_count=5), 0.0, 5 * 0.25 * MONTH),
        (replace(D3, vm_size="Standard_NC4as_T4_v3"), None, None),
        (replace(D3, vm_size="Standard_New_v9"), None, None),
        (replace(D3, vm_size=None), None, None),
        (replace(D3, spot=True), None, 3 * 0.25 * MONTH),
        (replace(D3, spot=True, spot_max_price=Decimal("0.1")), None, 3 * 0.1 * MONTH),
        (replace(D3, spot=True, spot_max_price=Decimal("0.5")), None, 3 * 0.25 * MONTH),
        (replace(D3, spot=True, spot_max_price=Decimal(-1)), None, 3 * 0.25 * MONTH),
        (replace(D3, spot=True, vm_size="Standard_New_v9", spot_max_price=Decimal("0.1")), None, 3 * 0.1 * MONTH),
        (replace(D3, spot=True, vm_size="Standard_New_v9"), None, None),
        (replace(D3, spot=True, autoscale=True, min_count=0, max_count=2), 0.0, 2 * 0.25 * MONTH),
    ],
)
def test_pool(pool: Pool, lowest: float | None, highest: float | None) -> None:
    line = monthly_cost([pool], "West Europe", "Free", PRICES).lines[0]
    assert line.lowest == (None if lowest is None else pytest.approx(lowest))
    assert line.highest == (None if highest is None else pytest.approx(highest))
    assert line.note


@pytest.mark.parametrize(("tier", "month"), [("Free", 0.0), ("Standard", 73.0), ("Premium", 438.0)])
def test_tier(tier: str, month: float) -> None:
    cost = monthly_cost([], "westeurope", tier, PRICES)
    assert (cost.lowest, cost.highest) == (pytest.approx(month), pytest.approx(month))


def test_text_names_range_unknown_parts_and_day() -> None:
    pools = [replace(D3, autoscale=True, min_count=3, max_count=5), replace(D3, name="gpu", vm_size="Standard_X")]
    text = monthly_cost(pools, "westeurope", "Standard", PRICES).text()
    assert text.startswith("USD 620.50 to 985.50 a month; unknown: pool gpu (prices of 2026-06-18; ")
    assert "to" not in monthly_cost([D3], "westeurope", "Free", PRICES).text().split(" a month")[0]


@pytest.mark.parametrize(
    ("location", "tier", "unknown"),
    [
        ("atlantis", "Free", ("pool inference",)),
        (None, "Free", ("pool inference",)),
        ("westeurope", "Gold", ("tier Gold",)),
    ],
)
def test_unknown_is_said_to_be_unknown(location: str | None, tier: str, unknown: tuple[str, ...]) -> None:
    assert monthly_cost([D3], location, tier, PRICES).unknown == unknown


def test_difference_of_a_change() -> None:
    before = monthly_cost([D3], "westeurope", "Free", PRICES)
    after = monthly_cost([replace(D3, autoscale=True, min_count=2, max_count=4)], "westeurope", "Standard", PRICES)
    assert cost_change(before, after).text() == "USD -109.50 to +255.50 a month"
    assert cost_change(before, before).text() == "USD +0.00 a month"
    unknown = monthly_cost([replace(D3, vm_size=None)], "westeurope", "Free", PRICES)
    assert cost_change(before, unknown).text() == "USD -547.50 a month (of the parts whose price is known)"


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=6),
    st.sampled_from(["westeurope", "eastus", "southindia"]),
    st.sampled_from(["Free", "Standard", "Premium"]),
)
def test_bounds_are_in_order_and_parts_add_up(counts: list[tuple[int, int, bool]], region: str, tier: str) -> None:
    pools = [
        Pool("p", "Standard_D4s_v5", autoscale=True, min_count=low, max_count=low + more, spot=spot)
        for low, more, spot in counts
    ]
    cost = monthly_cost(pools, region, tier, price_list())
    assert 0 <= cost.lowest <= cost.highest
    assert cost.highest == pytest.approx(sum(line.highest or 0 for line in cost.lines))
    parts = [monthly_cost([pool], region, "Free", price_list()).highest for pool in pools]
    assert cost.highest == pytest.approx(sum(parts) + monthly_cost([], region, tier, price_list()).highest)
