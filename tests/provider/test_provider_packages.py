"""Packages that no index has, told to programs in other languages: by Construct, and by the Check of an image."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from stub_index import StubIndex

TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/state"}'


@pytest.fixture(scope="module")
def index() -> Iterator[StubIndex]:
    stub = StubIndex()
    stub.add("tiny", "tiny-1.0-py3-none-any.whl")
    yield stub
    stub.close()


@pytest.fixture(scope="module")
def asking_plugin(start_plugin: Callable[..., Any], index: StubIndex, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plugin that asks our index only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    del kept["AKS_INFERENCE_PACKAGE_CHECK"]
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.url, "no_proxy": "127.0.0.1"}
    return start_plugin(env={**kept, **own, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))})


def test_a_component_of_another_language(
    asking_plugin: Any, index: StubIndex, errors_of: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "score.py").write_text("def init():\n    pass\n\n\ndef run(data):\n    return data\n")
    config = {"entryScript": str(tmp_path / "score.py"), "environment": {"pipPackages": ["tiny", "missing==1"]}}
    inputs = {"target": TARGET, "inferenceConfig": config}
    with pytest.raises(grpc.RpcError) as caught:
        asking_plugin.construct("ModelWebService", inputs, preview=True)
    assert errors_of(caught.value) == {
        "inferenceConfig.environment.pipPackages[1]": f'"missing==1": no package of this name at {index.host}; '
        "check the spelling, or add the index with --extra-index-url"
    }
    index.add("missing", "missing-1.tar.gz")
    asking_plugin.construct("ModelWebService", inputs, preview=True)
