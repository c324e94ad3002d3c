"""Where plugins are found, and what is said of those that do not start."""

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from embedded_engine.plugins.answers import ProviderError, init_message
from embedded_engine.plugins.client import Provider
from embedded_engine.plugins.find import Finder, Launch, PluginNotFoundError, ProjectPlugin, launch
from embedded_engine.plugins.process import PluginProcess, PluginStartError


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def python_plugin(folder: Path, manifest: str = "runtime: python\n") -> Path:
    folder.mkdir(parents=True)
    (folder / "PulumiPlugin.yaml").write_text(manifest)
    (folder / "__main__.py").write_text("")
    return folder


@pytest.fixture
def finder(tmp_path: Path) -> Finder:
    return Finder((), {"PATH": str(tmp_path / "bin"), "PULUMI_HOME": str(tmp_path / "home")})


def test_the_projects_own_come_first_then_path_then_the_plugin_folder(tmp_path: Path, finder: Finder) -> None:
    home = tmp_path / "home" / "plugins"
    for version in ("1.2.0", "1.10.0", "1.10.0-beta"):
        executable(home / f"resource-x-v{version}" / "pulumi-resource-x")
    assert finder.find("x").folder == home / "resource-x-v1.10.0"
    assert finder.find("x", "1.2.0").folder == home / "resource-x-v1.2.0"
    on_path = executable(tmp_path / "bin" / "pulumi-resource-x")
    assert finder.find("x").command == (str(on_path),)
    own = python_plugin(tmp_path / "own")
    declared = Finder((ProjectPlugin("x", own), ProjectPlugin("y", own, "2.0.0")), finder.environment)
    assert declared.find("x").command == (sys.executable, "-u", str(own))
    assert declared.find("y", "2.0.0").folder == own
    with pytest.raises(PluginNotFoundError, match=r"no provider plugin y 3\.0\.0"):
        declared.find("y", "3.0.0")


def test_where_was_looked_is_said(finder: Finder, tmp_path: Path) -> None:
    with pytest.raises(PluginNotFoundError) as caught:
        finder.find("nope", "1.0.0")
    text = str(caught.value)
    assert "plugins.providers" in text
    assert "pulumi-resource-nope" in text
    assert f"{tmp_path}/home/plugins has no `resource-nope-v1.0.0`" in text


@pytest.mark.parametrize(
    ("manifest", "made", "interpreter"),
    [
        ("runtime: python\n", None, sys.executable),
        ("runtime: python\n", "venv", "venv/bin/python"),
        ("runtime:\n  name: python\n  options:\n    virtualenv: env\n", "env", "env/bin/python"),
        ("runtime:\n  name: python\n  options:\n    toolchain: uv\n", ".venv", ".venv/bin/python"),
    ],
)
def test_the_interpreter_of_a_python_plugin(tmp_path: Path, manifest: str, made: str | None, interpreter: str) -> None:
    folder = python_plugin(tmp_path / "plugin", manifest)
    if made:
        executable(folder / made / "bin" / "python")
    assert Path(launch("x", folder).command[0]) == folder / interpreter


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("runtime:\n  name: python\n  options:\n    virtualenv: env\n", "env, which does not exist; create it"),
        ("runtime:\n  name: python\n  options:\n    toolchain: poetry\n", "the toolchain 'poetry'"),
        ("runtime: nodejs\n", "names the runtime 'nodejs'"),
        ("runtime: [", "cannot be read"),
        ("- 1", "cannot be read"),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_said(tmp_path: Path, manifest: str, said: str) -> None:
    with pytest.raises(PluginNotFoundError, match=said):
        launch("x", python_plugin(tmp_path / "plugin", manifest))


def test_a_folder_without_a_plugin_is_said(tmp_path: Path) -> None:
    with pytest.raises(PluginNotFoundError, match="does not exist"):
        launch("x", tmp_path / "nope")
    with pytest.raises(PluginNotFoundError, match=r"neither pulumi-resource-x nor PulumiPlugin\.yaml"):
        launch("x", tmp_path)
    (tmp_path / "PulumiPlugin.yaml").write_text("runtime: python\n")
    with pytest.raises(PluginNotFoundError, match=r"neither __main__.py nor pyproject.toml"):
        launch("x", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "the-plugin"\n')
    assert launch("x", tmp_path).command[-3:] == ("-m", "pulumi.run.plugin", "the-plugin")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo not-a-port", "said 'not-a-port' where its port was expected"),
        ("echo broken >&2; exit 1", "ended before it said its port:\nbroken"),
    ],
)
async def test_a_plugin_that_does_not_start_is_said(tmp_path: Path, script: str, said: str) -> None:
    path = executable(tmp_path / "plugin", f"#!/bin/sh\n{script}\n")
    with pytest.raises(PluginStartError, match=said):
        await PluginProcess("x", lambda *_: None).start(Launch((str(path),), tmp_path), "127.0.0.1:1", {})


async def test_what_a_plugin_prints_is_passed_on_and_all_of_its_group_ends(tmp_path: Path) -> None:
    script = "#!/bin/sh\necho 1234\necho out\necho err >&2\n/bin/sleep 60 &\necho child $!\nexec /bin/sleep 60\n"
    said: list[tuple[str, str]] = []
    process = PluginProcess("x", lambda stream, line: said.append((stream, line)))
    await process.start(Launch((str(executable(tmp_path / "plugin", script)),), tmp_path), "127.0.0.1:1", {})
    assert process.port == 1234
    async with asyncio.timeout(10):
        while len(said) < 3:
            await asyncio.sleep(0.01)
    child = next(int(line.split()[1]) for _, line in said if line.startswith("child"))
    assert {("out", "out"), ("err", "err")} <= set(said)
    await process.end()
    async with asyncio.timeout(10):
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


async def test_a_call_to_a_plugin_that_is_gone_is_lost() -> None:
    provider = Provider("x", 1)
    with pytest.raises(ProviderError, match="the plugin has ended or cannot be reached") as caught:
        await provider.create("urn:pulumi:dev::p::x:i:T::a", {}, 0, preview=False)
    assert caught.value.lost
    await provider.close()


def test_reasons_of_a_half_made_resource() -> None:
    assert init_message([]) == "resource init failed"
    assert init_message(["a"]).strip() == "1 error occurred:\n\t* a"
    assert init_message(["a", "b"]).strip() == "2 errors occurred:\n\t* a\n\t* b"
