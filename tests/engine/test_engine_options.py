"""Options of a resource, as a program gives them and as its provider and the state see them."""

from engine_lab import Lab

PROGRAM = """
options = pulumi.ResourceOptions
limits = pulumi.CustomTimeouts(create="5m", update="90s", delete="1h")
if {all}:
    Thing("kept", options(retain_on_delete=True), value="1")
    host = Thing("host", value="1")
    Thing("guest", options(deleted_with=host), value="1")
    Thing("timed", options(custom_timeouts=limits), value="{value}")
Thing("fixed", options(ignore_changes=["value"]), value="{value}")
Thing("renewed", options(replace_on_changes=["value"]), value="{value}")
Thing("hushed", options(additional_secret_outputs=["made"]), value="{value}")
Thing("guarded", options(protect=True), value="1")
"""


def test_options_hold_from_the_first_run_to_the_last(lab: Lab) -> None:
    seen = lab.up(PROGRAM.format(all=True, value="1"))
    assert "Within timed 300" in seen.calls
    made = lab.resources()
    assert made["timed"]["customTimeouts"] == {"create": 300, "update": 90, "delete": 3600}
    assert made["hushed"]["outputs"]["made"]["plaintext"] == '"made-hushed-1"'
    assert made["kept"]["retainOnDelete"] is True
    assert made["guest"]["deletedWith"] == made["host"]["urn"]

    lab.program(PROGRAM.format(all=True, value="2"))
    asked = {"timed": ["update"], "renewed": ["replace"], "hushed": ["update"]}
    assert {name: ops for name, ops in lab.run("preview").ops.items() if ops != ["same"]} == asked
    seen = lab.run("up")
    assert seen.ended["fixed"] == ["same"]
    assert seen.ended["renewed"] == ["create-replacement", "replace", "delete-replaced"]
    assert "Within timed 90" in seen.calls
    made = lab.resources()
    assert made["fixed"]["inputs"]["value"] == "1"
    assert made["hushed"]["outputs"]["made"]["plaintext"] == '"made-hushed-1"'

    # What is kept, and what goes with its host, is not told to the provider.
    seen = lab.up(PROGRAM.format(all=False, value="2"))
    assert {"kept", "host", "guest", "timed"}.isdisjoint(lab.resources())
    assert sorted(c for c in seen.calls if c.startswith(("Delete", "Within"))) == [
        "Delete host",
        "Delete timed",
        "Within timed 3600",
    ]

    seen = lab.up("", code=1)
    assert seen.said("protected")
    assert "Delete guarded" not in seen.calls
    assert "guarded" in lab.resources()
