"""The pipeline files: YAML, and every command of ours in them exists with these flags."""

import re
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pipelines"
FILES = sorted(FOLDER.iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_they_are_yaml_and_name_what_there_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from aks_inference_provider.cli import check, report

    text = file.read_text("utf-8")
    assert yaml.safe_load(text)
    commands = re.findall(r"aks-inference (check|report)((?: --[a-z-]+)*)", text)
    assert commands
    for name, flags in commands:
        with pytest.raises(SystemExit):
            {"check": check, "report": report}[name].run(["--help"])
        shown = capsys.readouterr().out
        assert all(flag in shown for flag in flags.split())
