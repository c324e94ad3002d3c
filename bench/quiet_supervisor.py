"""A supervisor that runs nothing: it keeps what is declared, and every endpoint is healthy at once.

For benchmarks of what happens before a deployment: a real one with a hundred endpoints takes a share of the machine
that would be counted as the preview's.

    python bench/quiet_supervisor.py STATE_DIRECTORY PORT      (prints `ready`; ends when it is told to shut down)
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from aiohttp import web

from aks_inference_runtime.api.content import combined_digest, file_digest, model_files
from aks_inference_runtime.api.errors import NotFound
from aks_inference_runtime.api.problems import HTTP_STATUS, to_problem
from aks_inference_runtime.api.status import EndpointStatus, EndpointView, ModelRecord, ServiceState
from aks_inference_runtime.api.supervisor import (
    API_PREFIX,
    EndpointKeys,
    EndpointSubmission,
    LocalSettings,
    ModelRegistration,
    SupervisorInfo,
    SupervisorRecord,
)


class Quiet:
    """What is declared."""

    def __init__(self, settings: LocalSettings, socket: Path) -> None:
        self._settings = settings
        self._socket = socket
        self._endpoints: dict[str, EndpointSubmission] = {}
        self._models: dict[str, ModelRecord] = {}
        self.ended = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        """One call of the supervisor's API."""
        parts = request.path.removeprefix(API_PREFIX).strip("/").split("/")
        try:
            return web.json_response(self._answer(request.method, parts, await request.text()))
        except NotFound as error:
            return web.json_response(to_problem(error).to_wire(), status=HTTP_STATUS[NotFound])

    def _answer(self, method: str, parts: list[str], body: str) -> object:
        match method, parts:
            case "GET", ["info"]:
                return self._info().to_wire()
            case "POST", ["models"]:
                record = store(ModelRegistration.model_validate_json(body))
                self._models[record.name] = record
                return record.to_wire()
            case "GET", ["models"]:
                return [record.to_wire() for record in self._models.values()]
            case "PUT", ["endpoints", name]:
                self._endpoints[name] = EndpointSubmission.model_validate_json(body)
                return self._view(name).status.to_wire()
            case "GET", ["endpoints", name]:
                return self._view(name).to_wire()
            case "GET", ["endpoints", _, "keys"]:
                return EndpointKeys(primary_key="one", secondary_key="two").to_wire()
            case "DELETE", ["endpoints", name]:
                del self._endpoints[name]
            case "POST", ["shutdown"]:
                self.ended.set()
            case "DELETE", ["models", _, _]:
                pass
            case _:
                raise NotFound(f"{method} /{'/'.join(parts)}")
        return None

    def _info(self) -> SupervisorInfo:
        s = self._settings
        url = f"http://127.0.0.1:{s.port}"
        return SupervisorInfo(
            name=s.name,
            pid=os.getpid(),
            started=0,
            version="quiet",
            url=url,
            port=s.port,
            state_directory=s.state_directory,
            socket=str(self._socket),
        )

    def _view(self, name: str) -> EndpointView:
        if name not in self._endpoints:
            raise NotFound(f"no endpoint {name}")
        status = EndpointStatus(name=name, state=ServiceState.HEALTHY, generation=1, observed_generation=1)
        return EndpointView(endpoint=self._endpoints[name].endpoint, status=status)


def store(m: ModelRegistration) -> ModelRecord:
    """The record of a model's only version."""
    files = {name: file_digest(path) for name, path in model_files(Path(m.source_path), m.child_paths).items()}
    return ModelRecord(name=m.name, version=1, digest=combined_digest(files), files=files)


async def serve(directory: Path, port: int) -> None:
    """Answers until it is told to shut down."""
    run = Path(tempfile.mkdtemp(prefix="quiet-"))
    settings = LocalSettings(name="local", state_directory=str(directory), port=port)
    record = SupervisorRecord(settings=settings, run_directory=str(run))
    quiet = Quiet(settings, record.socket)
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", quiet.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(record.socket)).start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, quiet.ended.set)
    await asyncio.to_thread(announce, directory, record)
    await quiet.ended.wait()
    await runner.cleanup()
    await asyncio.to_thread(shutil.rmtree, run)
    await asyncio.to_thread(shutil.rmtree, directory)


def announce(directory: Path, record: SupervisorRecord) -> None:
    """Writes where it answers, as the real one does."""
    directory.mkdir(mode=0o700, parents=True)
    (directory / "supervisor.json").write_text(json.dumps(record.to_wire()))
    print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
