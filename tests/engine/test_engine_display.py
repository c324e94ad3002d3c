"""What people see of a run, word for word."""

import io
import os
import pty
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_resources import APP, DISK, ROOT, SERVER, resource, secret, step

from embedded_engine.display import Display
from embedded_engine.display.live import LiveArea
from embedded_engine.display.words import safe
from embedded_engine.events import (
    Diagnostic,
    Event,
    PropertyDiff,
    ResourceFailed,
    ResourceOutputs,
    ResourcePre,
    Summary,
)
from embedded_engine.values import UNKNOWN

LIMIT_S = 10


def told(*events: Event, kind: str = "up", preview: bool = True, **options: Any) -> str:
    """The text of a run with these events, on a clock that goes on by a second at each look."""
    ticks: Iterator[int] = iter(range(10_000))
    stream = io.StringIO()
    display = Display(stream.write, kind, "dev", preview, clock=lambda: float(next(ticks)), **options)
    for event in events:
        display(event)
    display.close()
    return stream.getvalue()


OLD_APP = resource(APP, inputs={"traffic": {"A": 100}})
NEW_APP = resource(APP, inputs={"traffic": {"A": 90, "B": 10}})
OLD_SERVER = resource(SERVER, APP, id="s-1", inputs={"size": 1, "key": secret("old"), "zone": "a"})
NEW_SERVER = resource(SERVER, APP, inputs={"size": UNKNOWN, "key": secret("new"), "zone": "b"})
OLD_DISK = resource(DISK, id="d-1", inputs={"gb": 5.0, "key": secret("old")})
OLD_ROOT = resource(ROOT, outputs={"url": "http://old", "gone": 1, "key": secret("old"), "same": [1, {"a": True}]})
NEW_ROOT = resource(ROOT, outputs={"url": UNKNOWN, "new": {"a": 1}, "key": secret("new"), "same": [1, {"a": True}]})
UPDATE = step("update", OLD_APP, NEW_APP, diffs=["traffic"])
REPLACE = step(
    "replace",
    OLD_SERVER,
    NEW_SERVER,
    keys=["zone"],
    diffs=["key", "size", "zone"],
    detailed_diff={
        "size": PropertyDiff("update"),
        "key": PropertyDiff("update", input_diff=True),
        "zone": PropertyDiff("update-replace"),
    },
)
CHANGES: list[Event] = [
    ResourcePre(step("same", OLD_ROOT, NEW_ROOT), True),
    ResourcePre(UPDATE, True),
    ResourceOutputs(UPDATE, True),
    ResourcePre(step("create-replacement", OLD_SERVER, NEW_SERVER, logical=False), True),
    ResourceOutputs(step("create-replacement", OLD_SERVER, NEW_SERVER, logical=False), True),
    ResourcePre(REPLACE, True),
    ResourceOutputs(REPLACE, True),
    ResourceOutputs(step("same", OLD_ROOT, NEW_ROOT), True),
    ResourcePre(step("delete", OLD_DISK, None), True),
    ResourceOutputs(step("delete", OLD_DISK, None), True),
    Diagnostic("warning", "mind\nthe gap\n", APP),
    Diagnostic("debug", "not shown"),
]


def test_an_error_that_only_follows_another_is_told_where_it_is_alone() -> None:
    ended = Diagnostic("error", "the program ended with 1", aftermath=True)
    assert "error: the program ended with 1" in told(ended, Summary({}, 0.0, False, preview=True))
    text = told(Diagnostic("error", "two mistakes"), ended, Summary({}, 0.0, False, preview=True))
    assert "two mistakes" in text
    assert "the program ended" not in text


def test_what_a_preview_said_of_what_stays_is_not_said_again() -> None:
    same, other = step("same", OLD_APP, OLD_APP), step("update", OLD_DISK, OLD_DISK)
    notes = frozenset({Diagnostic("info", "checked: ok", APP), Diagnostic("info", "checked: ok", DISK)})
    messages = [
        Diagnostic("info", "checked: ok", APP),
        Diagnostic("info", "new: port 80", APP),
        Diagnostic("warning", "mind the gap", APP),
        Diagnostic("info", "checked: ok", DISK),
        Diagnostic("info", "printed"),
    ]
    events = [ResourcePre(same), ResourcePre(other), *messages, Summary({"same": 1}, 0.0, True)]
    text = told(*events, preview=False, shown=notes | {messages[-1]})
    assert text.count("checked: ok") == 1
    assert all(kept in text for kept in ("new: port 80", "mind the gap", "printed"))
    before = Display(lambda _: None, "up", "dev", True)
    for event in events:
        before(event)
    assert before.notes() == {m for m in messages if m.severity == "info" and m.urn}


def test_a_preview() -> None:
    summary = Summary({"update": 1, "replace": 1, "delete": 1, "same": 1}, 1.0, True, preview=True)
    assert told(*CHANGES, summary) == (
        """Previewing update (dev):
     Type                        Name        Plan     Info
     pulumi:pulumi:Stack         shop-dev
 ~   ├─ my:app:App               web         update   [diff: ~traffic]; 1 warning
 +-  │  └─ cloud:compute:Server  web-server  replace  [diff: ~key,~size,~zone]
 -   └─ cloud:index:Disk         disk        delete

Changes:
  ~ my:app:App (web)
      ~ traffic.A : 100 => 90
      + traffic.B : 10
  +- cloud:compute:Server (web-server)
      ~ key  : [secret] => [secret]
      ~ size : 1 => output<string>
      ~ zone : "a" => "b" (forces replacement)

Diagnostics:
  my:app:App (web):
    warning: mind
    the gap

Outputs:
  - gone: 1
  ~ key : [secret] => [secret]
  + new : {
          a: 1
      }
    same: [
        [0]: 1
        [1]: {
            a: true
        }
    ]
  ~ url : "http://old" => output<string>

Resources:
    ~ 1 to update
    - 1 to delete
    +- 1 to replace
    3 changes. 1 unchanged

"""
    )


def test_a_preview_in_full() -> None:
    summary = Summary({"update": 1, "replace": 1, "delete": 1, "same": 1}, 1.0, True, preview=True)
    text = told(*CHANGES, summary, diff=True)
    assert text.startswith(
        f"""Previewing update (dev):
   pulumi:pulumi:Stack (shop-dev): (same)
      [urn={ROOT}]
    ~  my:app:App (web): (update)
          [urn={APP}]
        ~ traffic.A: 100 => 90
        + traffic.B: 10
        +- cloud:compute:Server (web-server): (replace)
              [id=s-1]
              [urn={SERVER}]
            ~ key: [secret] => [secret]
            ~ size: 1 => output<string>
            ~ zone: "a" => "b" (forces replacement)
    -  cloud:index:Disk (disk): (delete)
          [id=d-1]
          [urn={DISK}]
        - gb : 5
        - key: [secret]

Diagnostics:
"""
    )


def test_an_update_as_it_goes_on_and_at_its_end() -> None:
    create = step("create", None, resource(DISK, inputs={"gb": 5}))
    failing = step("create", None, NEW_SERVER)
    text = told(
        ResourcePre(step("create", None, resource(ROOT))),
        ResourcePre(create),
        ResourceOutputs(create),
        ResourcePre(step("same", OLD_APP, OLD_APP)),
        ResourceOutputs(step("same", OLD_APP, OLD_APP)),
        ResourcePre(failing),
        Diagnostic("error", "no server\x1b[2J was\r made", SERVER),
        ResourceFailed(failing),
        Summary({"create": 2, "same": 1}, 65.0, False),
        preview=False,
    )
    assert text == (
        """Updating (dev):
 +   pulumi:pulumi:Stack shop-dev creating
 +   cloud:index:Disk disk creating
 +   cloud:index:Disk disk created (1.00s)
 +   cloud:compute:Server web-server creating
 +   cloud:compute:Server web-server creating failed
     Type                        Name        Status                  Info
 +   pulumi:pulumi:Stack         shop-dev    creating, not finished
 +   ├─ cloud:index:Disk         disk        created (1.00s)
     └─ my:app:App               web
 +      └─ cloud:compute:Server  web-server  **creating failed**     1 error

Diagnostics:
  cloud:compute:Server (web-server):
    error: no server was made

Resources:
    + 2 created
    ! 1 failed

Duration: 1m5s

"""
    )


def test_a_failed_update_tells_what_was_wanted() -> None:
    old = resource(DISK, id="d-1", inputs={"gb": 5, "tags": []})
    details = {"gb": PropertyDiff("update"), "tags[0]": PropertyDiff("add")}
    wanted = step("update", old, resource(DISK, id="d-1", inputs={"gb": 7, "tags": ["x"]}), detailed_diff=details)
    text = told(
        ResourcePre(wanted),
        Diagnostic("error", "no room", DISK),
        ResourceFailed(step("update", old, old, detailed_diff=details)),
        Summary({}, 1, False),
        preview=False,
    )
    assert '      ~ gb      : 5 => 7\n      + tags[0] : "x"\n' in text
    assert "**updating failed**" in text
    assert "null" not in text


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"same": 4}, "    ! 1 failed\n    2 unchanged\n"),
        ({"same": 2}, "    ! 1 failed\n\n"),
        ({"same": 3, "create": 1}, "    + 1 created\n    ! 1 failed\n    1 change. 1 unchanged\n"),
        ({"create": 1, "update": 1}, "    + 1 created\n    ~ 1 updated\n    ! 1 failed\n    2 changes\n"),
    ],
)
def test_what_failed_and_what_it_is_in_are_not_unchanged(changes: dict[str, int], lines: str) -> None:
    """The stack and the component come as "same", and hold what failed."""
    failing = step("create", None, resource(SERVER, parent=APP))
    same = [step("same", r, r) for r in (OLD_ROOT, OLD_APP)]
    events = [kind(one) for one in same for kind in (ResourcePre, ResourceOutputs)]
    text = told(*events, ResourcePre(failing), ResourceFailed(failing), Summary(changes, 1, False), preview=False)
    assert f"Resources:\n{lines}" in text


def test_a_resource_above_what_failed_is_counted_as_unchanged() -> None:
    """It has been looked at itself, and is as it should be; a component is not more than what is in it."""
    failing = step("create", None, resource(SERVER, parent=DISK))
    disk = resource(DISK, id="d-1", parent=ROOT)
    same = [step("same", r, r) for r in (OLD_ROOT, disk)]
    events = [kind(one) for one in same for kind in (ResourcePre, ResourceOutputs)]
    text = told(*events, ResourcePre(failing), ResourceFailed(failing), Summary({"same": 2}, 1, False), preview=False)
    assert "Resources:\n    ! 1 failed\n    1 unchanged\n" in text


def test_what_goes_on_is_told_line_by_line_where_nothing_is_drawn_again() -> None:
    now = 0.0
    timers: list[tuple[float, Callable[[], None]]] = []
    stream = io.StringIO()
    display = Display(
        stream.write, "up", "dev", False, clock=lambda: now, later=lambda wait, call: timers.append((wait, call))
    )
    create = step("create", None, NEW_SERVER)

    def status(at: float, text: str, urn: str = SERVER) -> None:
        nonlocal now
        now = at
        display(Diagnostic("info", text, urn, ephemeral=True))

    status(0, "too early")
    display(ResourcePre(create))
    status(1, "0/2 ready\nand more")
    status(2, "0/2 ready")
    status(3, "1/2 ready")
    status(4, "building")
    status(4, "formatting", DISK)
    assert [wait for wait, _ in timers] == [3]
    now = 6.0
    timers.pop()[1]()
    status(9, "building")
    status(11, "2/2 ready")
    status(12, "almost")
    display(ResourceOutputs(create))
    now = 16.0
    timers.pop()[1]()
    status(17, "late")
    assert stream.getvalue() == (
        """Updating (dev):
 +   cloud:compute:Server web-server creating
 +   cloud:compute:Server web-server creating: 0/2 ready
 +   cloud:compute:Server web-server creating: building
 +   cloud:compute:Server web-server creating: 2/2 ready
 +   cloud:compute:Server web-server created (12s)
"""
    )


@pytest.mark.parametrize("options", [{"preview": True}, {"preview": False, "live": True}])
def test_no_line_for_what_goes_on_in_a_preview_or_where_it_is_drawn(options: dict[str, Any]) -> None:
    create = step("create", None, NEW_SERVER)
    text = told(ResourcePre(create), Diagnostic("info", "building", SERVER, ephemeral=True), **options)
    assert "creating: building" not in text


def test_a_replacement_is_one_row_also_while_its_parts_go_on() -> None:
    made = step("create-replacement", OLD_SERVER, NEW_SERVER, logical=False)
    gone = step("delete-replaced", OLD_SERVER, None, logical=False)
    events: list[Event] = []
    for part in (made, REPLACE, gone):
        events += [ResourcePre(part), ResourceOutputs(part)]
    text = told(*events, Summary({"replace": 1}, 1, True), preview=False)
    assert " ++  cloud:compute:Server web-server creating replacement\n" in text
    assert " --  cloud:compute:Server web-server deleted original (1.00s)\n" in text
    assert " +-  cloud:compute:Server  web-server  replaced (5.00s)  [diff" in text
    assert "+- 1 replaced\n\n" in text


def test_nothing_to_do() -> None:
    same = [ResourcePre(step("same", r, r)) for r in (OLD_ROOT, OLD_APP)]
    text = told(*same, Summary({"same": 2}, 0.5, True), preview=False)
    assert text == (
        "Updating (dev):\n     Type                 Name      Status  Info\n"
        "     pulumi:pulumi:Stack  shop-dev\n\nResources:\n    2 unchanged\n\nDuration: 0.50s\n\n"
    )


def test_without_resources_and_with_a_failure_before_them() -> None:
    text = told(Diagnostic("error", "no program"), Summary({}, 0.0, False, preview=True))
    assert text == "Previewing update (dev):\nDiagnostics:\n  engine:\n    error: no program\n\n"


def test_a_refresh_shows_what_it_found() -> None:
    old = resource(DISK, id="d-1", inputs={"gb": 5}, outputs={"gb": 5, "state": "on"})
    new = resource(DISK, id="d-1", inputs={"gb": 7}, outputs={"gb": 7, "state": "on"})
    found = step("update", old, new, detailed_diff={"gb": PropertyDiff("update")})
    text = told(
        ResourcePre(step("refresh", old, old)),
        ResourceOutputs(found),
        Summary({"update": 1}, 1, True),
        kind="refresh",
        preview=False,
    )
    assert " ~   cloud:index:Disk  disk  updated" in text
    assert "      ~ gb : 5 => 7\n" in text


def test_secrets_are_shown_only_in_outputs_and_only_on_demand() -> None:
    summary = Summary({"replace": 1}, 1.0, True, preview=True)
    for options in ({}, {"diff": True}):
        assert "new" not in told(*CHANGES, summary, **options).replace("+ new", "")
    text = told(*CHANGES, summary, show_secrets=True)
    assert '  ~ key : "old" => "new"\n' in text
    assert "      ~ key  : [secret] => [secret]\n" in text


def test_colours_are_left_out_or_whole() -> None:
    summary = Summary({"update": 1}, 1.0, True, preview=True)
    plain, colored = told(*CHANGES, summary), told(*CHANGES, summary, color=True)
    assert "\x1b" not in plain
    assert colored.count("\x1b[0m") == sum(colored.count(f"\x1b[{code}m") for code in (1, 2, 31, 32, 33, 35)) > 10
    assert safe(colored) == plain


def test_the_live_area_takes_itself_away() -> None:
    main, side = pty.openpty()
    with os.fdopen(side, "w", buffering=1) as stream:
        area = LiveArea(lambda text: print(text, end="", file=stream, flush=True), lambda room: ["one", "two"][:room])
        seen = b""
        deadline = time.monotonic() + LIMIT_S
        while b"two" not in seen and time.monotonic() < deadline:
            seen += os.read(main, 1000)
        area.close()
        area.close()
    seen += os.read(main, 1000)
    os.close(main)
    assert b"one\r\ntwo\r\n" in seen
    assert seen.endswith(b"\x1b[2A\r\x1b[J")
