"""The commands on stacks and configuration, as the process that users start."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from embedded_engine.cli.app import cli

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
ROOT = "urn:pulumi:dev::tested::pulumi:pulumi:Stack::tested-dev"


def root(**outputs: Any) -> dict[str, Any]:
    return {"urn": ROOT, "custom": False, "type": "pulumi:pulumi:Stack", "outputs": outputs}


def refused(done: Any) -> str:
    """The text of an error: a sentence, no traceback."""
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(("error: ", "warning: "))
    return str(done.stderr)


def test_a_stack_from_its_beginning_to_its_end(workspace: Any) -> None:
    assert workspace.must("stack", "init", "dev", "--non-interactive") == "Created stack 'dev'\n"
    settings = workspace.project / "Pulumi.dev.yaml"
    assert settings.read_text().startswith("encryptionsalt: v1:")
    assert workspace.must("stack", "output", "--json").strip() == "{}"
    listed = json.loads(workspace.must("stack", "ls", "--json"))
    assert listed == [{"name": "dev", "current": True, "updateInProgress": False}]
    workspace.must("stack", "rm", "dev", "--yes")
    assert json.loads(workspace.must("stack", "ls", "--json")) == []
    assert not settings.exists()
    left = [p.name for p in (workspace.folder / "state").rglob("*") if p.is_file()]
    assert left == ["meta.yaml"]


def test_the_selected_stack_is_the_default(workspace: Any) -> None:
    for name in ("one", "two"):
        workspace.must("stack", "init", name)
    workspace.must("config", "set", "a", "1")
    assert (workspace.project / "Pulumi.two.yaml").read_text().endswith("config:\n  tested:a: '1'\n")
    workspace.must("stack", "select", "one")
    assert "a" not in json.loads(workspace.must("config", "--json"))
    assert "NAME  LAST UPDATE  RESOURCE COUNT\none*  n/a" in workspace.must("stack", "ls")
    assert "PULUMI" not in refused(workspace.run("stack", "select", "three"))
    workspace.must("stack", "select", "three", "--create")
    assert workspace.run("stack", "export", PULUMI_STACK="two").returncode == 0


def test_an_existing_salt_is_kept(workspace: Any) -> None:
    salt = "v1:fXzlv8jotfE=:v1:ieTyVVKSWX0nl+mJ:Aumk86Qp7BmQSzDPsNQtmY07dL08bg=="
    settings = workspace.project / "Pulumi.dev.yaml"
    settings.write_text(json.dumps({"encryptionsalt": salt, "config": {}}))
    before = settings.read_text()
    workspace.must("stack", "init", "dev")
    assert settings.read_text() == before
    assert workspace.export()["deployment"]["secrets_providers"]["state"]["salt"] == salt


def test_outputs_and_their_secrets(stack: Any, import_state: Callable[..., None]) -> None:
    hidden = {**SECRET, "plaintext": '{"deep":[1,"s3cret"]}'}
    import_state([root(open="a", closed=hidden, mixed={"x": [hidden, 1.5]}, number=3)])
    assert json.loads(stack.must("stack", "output", "--json")) == {
        "open": "a",
        "closed": "[secret]",
        "mixed": {"x": ["[secret]", 1.5]},
        "number": 3,
    }
    shown = json.loads(stack.must("stack", "output", "--json", "--show-secrets"))
    assert shown["mixed"] == {"x": [{"deep": [1, "s3cret"]}, 1.5]}
    assert stack.must("stack", "output", "open") == "a\n"
    assert stack.must("stack", "output", "closed") == "[secret]\n"
    assert stack.must("stack", "output", "closed", "--show-secrets") == '{"deep":[1,"s3cret"]}\n'
    assert "does not have output property 'nothing'" in refused(stack.run("stack", "output", "nothing"))
    table = stack.must("stack", "output")
    assert table.startswith("Current stack outputs (4):\n    OUTPUT  VALUE\n    closed  [secret]\n")
    assert "s3cret" not in stack.state_file.read_text()


def test_an_export_imported_again_is_the_same(stack: Any, import_state: Callable[..., None]) -> None:
    import_state([root(closed={**SECRET, "plaintext": '"s3cret"'})])
    before = stack.export()["deployment"]
    file = stack.folder / "export.json"
    stack.must("stack", "export", "--file", str(file))
    assert file.stat().st_mode & 0o077 == 0
    stack.must("stack", "import", "--file", str(file))
    assert stack.export()["deployment"]["resources"] == before["resources"]
    plain = stack.export("--show-secrets")["deployment"]["resources"][0]["outputs"]["closed"]
    assert plain == {**SECRET, "plaintext": '"s3cret"'}


RESOURCE = {"urn": "urn:pulumi:dev::tested::a:b:C::x", "custom": True, "type": "a:b:C"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "it has no `deployment`"),
        ({"version": 4, "deployment": {}}, "newer than this engine knows"),
        ({"deployment": {}}, "its version is None"),
        ({"version": 3, "deployment": {"resources": [{}]}}, "`urn` is missing"),
        ({"version": 3, "deployment": {"resources": [RESOURCE, RESOURCE]}}, "stands there twice"),
        ({"version": 3, "deployment": {"resources": [{**RESOURCE, "parent": "urn:x"}]}}, "is a child of urn:x"),
        (
            {"version": 3, "deployment": {"resources": [{**RESOURCE, "urn": "urn:pulumi:prod::tested::a:b:C::x"}]}},
            "belong to another stack",
        ),
        (
            {"version": 3, "deployment": {"secrets_providers": {"type": "cloud"}, "resources": [RESOURCE]}},
            "'cloud' is not supported",
        ),
    ],
)
def test_an_import_that_is_wrong_changes_nothing(stack: Any, content: Any, says: str) -> None:
    before = stack.state_file.read_bytes()
    text = content if isinstance(content, str) else json.dumps(content)
    assert says in refused(stack.run("stack", "import", stdin=text))
    assert stack.state_file.read_bytes() == before


def test_a_stack_with_resources_is_not_removed_by_itself(stack: Any, import_state: Callable[..., None]) -> None:
    import_state([root()])
    assert "still has resources" in refused(stack.run("stack", "rm", "--yes"))
    assert "--yes must be passed" in refused(stack.run("stack", "rm", "--force"))
    stack.must("stack", "rm", "--yes", "--force", "--preserve-config")
    assert (stack.project / "Pulumi.dev.yaml").exists()


def test_configuration_and_its_secrets(stack: Any) -> None:
    stack.must("config", "set", "plain", "two words")
    stack.must("config", "set", "--secret", "closed", stdin="s3cret\n")
    stack.must("config", "set", "other:region", "west")
    stack.must("config", "set", "--path", "deep.list[0].x", "7")
    stack.must("config", "set", "--path", "--secret", "deep.key", "s3cret too")
    assert "s3cret" not in (stack.project / "Pulumi.dev.yaml").read_text()
    assert stack.must("config") == (
        "KEY           VALUE\n"
        "other:region  west\n"
        "closed        [secret]\n"
        "deep          [secret]\n"
        "plain         two words\n"
    )
    assert stack.must("config", "get", "closed") == "s3cret\n"
    assert stack.must("config", "get", "--path", "deep.list[0].x") == "7\n"
    shown = json.loads(stack.must("config", "--json", "--show-secrets"))
    assert shown["tested:deep"]["objectValue"] == {"list": [{"x": 7}], "key": "s3cret too"}
    assert json.loads(stack.must("config", "--json"))["tested:closed"] == {"secret": True}
    stack.must("config", "set", "--path", 'other:labels["a:b"]', "c")
    assert stack.must("config", "get", "--path", 'other:labels["a:b"]') == "c\n"
    stack.must("config", "rm", "other:labels")
    stack.must("config", "rm", "--path", "deep.list")
    stack.must("config", "rm", "plain")
    assert "not found for stack 'dev'" in refused(stack.run("config", "get", "plain"))
    assert "not found" in refused(stack.run("config", "get", "--path", "deep.list[0].x"))


def test_a_configuration_is_looked_at_also_while_it_is_not_complete(stack: Any) -> None:
    project = {"name": "tested", "runtime": "python", "config": {"must": {"type": "integer"}, "key": {"secret": True}}}
    (stack.project / "Pulumi.yaml").write_text(json.dumps(project))
    stack.must("config", "set", "key", "s3cret")
    assert "s3cret" not in (stack.project / "Pulumi.dev.yaml").read_text()
    stack.must("config", "set", "a", "1")
    assert stack.must("config", "get", "a") == "1\n"
    del stack.environment["PULUMI_CONFIG_PASSPHRASE"]
    assert stack.must("config") == "KEY  VALUE\na    1\nkey  [secret]\n"


def test_a_damaged_ciphertext_is_named(stack: Any, import_state: Callable[..., None]) -> None:
    import_state([root(a={"b": {**SECRET, "plaintext": '"x"'}})])
    content = json.loads(stack.state_file.read_text())
    hidden = content["checkpoint"]["latest"]["resources"][0]["outputs"]["a"]["b"]
    settings = stack.project / "Pulumi.dev.yaml"
    settings.write_text(settings.read_text() + "config:\n  list: [{secure: v1:AAAA:AAAA}]\n")
    assert "configuration key 'tested:list' of stack 'dev'" in refused(stack.run("config", "get", "list"))
    hidden["ciphertext"] = hidden["ciphertext"][:-8] + "AAAAAAA="
    stack.state_file.write_text(json.dumps(content))
    assert f"{ROOT}: outputs.a.b: a ciphertext is damaged" in refused(stack.run("stack", "output"))


def test_every_flag_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "embedded-engine.md").read_text()

    def check(command: click.Command, name: str) -> None:
        _, _, last = name.rpartition(" ")
        assert f"`{last}" in guide, name
        for parameter in command.params:
            for flag in parameter.opts if isinstance(parameter, click.Option) else []:
                assert f"{flag}" in guide or not flag.startswith("--"), f"{name} {flag}"
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                assert found is not None
                check(found, f"{name} {child}".strip())

    for name in ("stack", "config", "preview", "up", "refresh", "destroy", "cancel"):
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        check(found, name)


def test_a_wrong_or_missing_passphrase(stack: Any) -> None:
    stack.must("config", "set", "--secret", "a", "b")
    assert "incorrect passphrase" in refused(stack.run("config", "get", "a", PULUMI_CONFIG_PASSPHRASE="y"))
    del stack.environment["PULUMI_CONFIG_PASSPHRASE"]
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" in refused(stack.run("config", "get", "a"))
    file = stack.folder / "passphrase"
    file.write_text("x\n")
    assert stack.run("config", "get", "a", PULUMI_CONFIG_PASSPHRASE_FILE=str(file)).stdout == "b\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up", "--plan", "x"], "`--plan` of the pulumi CLI is not supported"),
        (["preview", "--policy-pack=x"], "`--policy-pack` of the pulumi CLI is not supported"),
        (["up", "--paralel", "3"], "unknown flag: --paralel; did you mean --parallel?"),
        (["up", "--yes", "-Z"], "unknown flag: -Z"),
        (["watch"], "unknown or unsupported command `watch`"),
        (["previw"], "unknown or unsupported command `previw`: there are cancel, config, destroy, preview, refresh"),
        (["previw"], "; did you mean `preview`?"),
        (["stack", "exprt"], "; did you mean `export`?"),
        (["--yes", "up"], "unknown flag: --yes; a command's own flags stand after the command"),
        (["--non-interactive", "destroy"], "--yes or --skip-preview must be passed in"),
        (["--color", "blue", "stack", "ls"], "'blue' is not one of"),
        (["stack", "--stack", "nothing", "output"], "no stack named 'nothing' found"),
        (["config", "--json", "set", "a", "b"], "unknown flag: --json"),
        (["stack", "tag"], "unknown or unsupported command `stack tag`"),
        (["stack", "init"], "missing stack name"),
        (["stack", "init", "a/b/c"], "stack name 'a/b/c'"),
        (["stack", "init", "dev"], "already exists"),
        (["stack", "init", "new", "--secrets-provider", "awskms://x"], "only `passphrase` is supported"),
        (["stack", "export", "--stack", "nothing"], "no stack named 'nothing' found"),
        (["up"], "--yes or --skip-preview must be passed in"),
        (["destroy", "--non-interactive"], "--yes or --skip-preview must be passed in"),
        (["up", "--yes", "--parallel", "0"], "--parallel"),
        (["config", "set", "a"], ""),
        (["config", "set", "--path", "a[", "x"], "invalid property path"),
        (["cancel"], "--yes must be passed"),
        (["-C", "/nonexistent", "up"], "-C"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(stack: Any, arguments: list[str], says: str) -> None:
    done = stack.run(*arguments)
    if says:
        assert says in refused(done)
    else:
        assert done.returncode == 0


def test_outside_of_a_project(workspace: Any) -> None:
    (workspace.project / "Pulumi.yaml").unlink()
    assert "no Pulumi.yaml project file found" in refused(workspace.run("stack", "ls"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("stack", "ls", "--json", "-C", "PROJECT"),
        ("stack", "-C", "PROJECT", "ls", "--json"),
        ("-C", "PROJECT", "stack", "ls", "--json"),
        ("--non-interactive", "-CPROJECT", "stack", "ls", "--json"),
        ("--color", "never", "--cwd=PROJECT", "stack", "--non-interactive", "ls", "--json"),
    ],
)
def test_the_folder_can_be_named(stack: Any, arguments: tuple[str, ...]) -> None:
    done = stack.start(*(a.replace("PROJECT", str(stack.project)) for a in arguments), cwd="/")
    out, err = done.communicate(timeout=60)
    assert json.loads(out)[0]["name"] == "dev", err


def test_a_stack_named_before_the_command_is_the_one_that_is_meant(stack: Any) -> None:
    stack.must("stack", "init", "other")
    stack.must("config", "--stack", "dev", "set", "a", "1")
    assert "a" in (stack.project / "Pulumi.dev.yaml").read_text()
    stack.must("stack", "-s", "dev", "rm", "--yes")
    assert [entry["name"] for entry in json.loads(stack.must("stack", "ls", "--json"))] == ["other"]


def test_a_full_disk_leaves_the_old_state(stack: Any, import_state: Callable[..., None]) -> None:
    import_state([root(a="old")])
    before = {p: p.read_bytes() for p in stack.state_file.parent.iterdir()}
    deployment = stack.export()["deployment"]
    deployment["resources"][0]["outputs"]["a"] = "x" * 100_000
    process = stack.start(
        "stack",
        "import",
        stdin=-1,
        # Files end at that size, as they would on a full disk; the signal that comes with it is ignored by Python.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    _, err = process.communicate(json.dumps({"version": 3, "deployment": deployment}), timeout=60)
    assert process.returncode not in (0, None)
    assert "no room is left on the disk. What was stored before is whole. Make room and run it again." in err
    assert "Traceback" not in err
    assert {p: p.read_bytes() for p in stack.state_file.parent.iterdir()} == before
    assert list(stack.lock_folder.glob("*")) == []


def test_locks_are_respected_told_and_cancelled(stack: Any, import_state: Callable[..., None]) -> None:
    import_state([root()])
    stack.lock_folder.mkdir(parents=True, exist_ok=True)
    lock = stack.lock_folder / "x.json"
    lock.write_text(
        json.dumps({"pid": 1, "username": "me", "hostname": "elsewhere", "timestamp": "2026-01-01T00:00:00Z"})
    )
    export = json.dumps(stack.export())
    text = refused(stack.run("stack", "import", stdin=export))
    assert "me@elsewhere (pid 1) at 2026-01-01T00:00:00Z" in text
    assert "`cancel`" in text
    assert json.loads(stack.must("stack", "ls", "--json"))[0]["updateInProgress"] is True
    stack.must("cancel", "--yes")
    stack.must("stack", "import", stdin=export)
    assert list(stack.lock_folder.glob("*")) == []


def test_the_program_version_and_help(workspace: Any) -> None:
    assert workspace.must("--version").startswith("embedded-engine, version ")
    text = workspace.must("up", "--help")
    for flag in ("--yes", "--skip-preview", "--target-replace", "--continue-on-error", "--parallel"):
        assert flag in text


def test_a_folder_that_may_not_be_used_is_named(stack: Any) -> None:
    folder = stack.folder / "file"
    folder.write_text("no folder")
    for command in (["stack", "init", "new"], ["stack", "select", "dev"]):
        text = refused(stack.run(*command, PULUMI_BACKEND_URL=f"file://{folder}", PULUMI_HOME=str(folder)))
        assert str(folder) in text


def test_the_state_is_read_also_where_it_cannot_be_written(stack: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(stack.folder / "state", copy)
    for path in copy.rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    done = stack.run("stack", "export", PULUMI_BACKEND_URL=f"file://{copy}")
    assert done.returncode == 0
