"""Who owns what: rendezvous hashing, and the single decisions (the whole protocol: test_ownership_model.py)."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.router.ownership import (
    AWAY,
    Epoch,
    Phase,
    Surroundings,
    Tenure,
    may_claim,
    next_tenure,
    owner_of,
)

NAMES = st.sets(st.text("abcdefghij-0123456789", min_size=1, max_size=12), min_size=1, max_size=8)
ENDPOINTS = [f"endpoint-{number}" for number in range(300)]


@given(NAMES, st.data())
def test_a_router_that_goes_moves_only_its_own(routers: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(routers)))
    for endpoint in ENDPOINTS[:20]:
        before = owner_of(endpoint, routers)
        after = owner_of(endpoint, routers - {gone})
        assert before in {after, gone}


def test_endpoints_are_spread_evenly() -> None:
    counts = Counter(owner_of(endpoint, {"r-0", "r-1", "r-2"}) for endpoint in ENDPOINTS)
    assert all(70 <= count <= 130 for count in counts.values()), counts


def test_nobody_owns_without_routers() -> None:
    assert owner_of("svc", ()) is None


def around(**changed: object) -> Surroundings:
    usual = {"owner": "me", "holders": {}, "heard_all": True, "highest": 4, "superseded": False, "settled": True}
    return Surroundings(**{**usual, **changed})  # type: ignore[arg-type]


MINE = Epoch(4, "me")
HOLDING = Tenure(Phase.HOLDING, MINE)
YIELDING = Tenure(Phase.YIELDING, MINE)


@pytest.mark.parametrize(
    ("before", "what", "after"),
    [
        (AWAY, around(), Tenure(Phase.HOLDING, Epoch(5, "me"))),
        (AWAY, around(holders={"other": Epoch(3, "other")}), AWAY),
        (AWAY, around(heard_all=False), AWAY),
        (AWAY, around(owner="other"), AWAY),
        (HOLDING, around(), HOLDING),
        (HOLDING, around(heard_all=False), HOLDING),
        (HOLDING, around(owner="other", settled=False), YIELDING),
        (HOLDING, around(owner="other"), AWAY),
        (HOLDING, around(holders={"other": Epoch(3, "other")}), HOLDING),
        (HOLDING, around(holders={"other": Epoch(5, "other")}), AWAY),
        (HOLDING, around(superseded=True, highest=7), Tenure(Phase.HOLDING, Epoch(8, "me"))),
        (HOLDING, around(superseded=True, heard_all=False), AWAY),
        (YIELDING, around(), HOLDING),
        (YIELDING, around(owner="other", settled=False), YIELDING),
        (YIELDING, around(owner="other"), AWAY),
        (YIELDING, around(owner="other", superseded=True, settled=False), AWAY),
    ],
)
def test_decisions(before: Tenure, what: Surroundings, after: Tenure) -> None:
    assert next_tenure("me", before, what) == after


@pytest.mark.parametrize(
    ("present", "claim", "taken"),
    [
        (None, Epoch(1, "a"), True),
        (Epoch(1, "a"), Epoch(1, "a"), True),
        (Epoch(1, "a"), Epoch(1, "b"), True),
        (Epoch(1, "b"), Epoch(1, "a"), False),
        (Epoch(2, "a"), Epoch(1, "b"), False),
    ],
)
def test_claims(present: Epoch | None, claim: Epoch, *, taken: bool) -> None:
    assert may_claim(present, claim) is taken
