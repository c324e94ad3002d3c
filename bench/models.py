"""Models: hashing beside `sha256sum`, uploading to Azurite beside the SDK's own `upload_blob`.

Each figure is a ratio of times of one run, measured in turns; below 1 is faster than what stands beside it.

    ./bench/run models [--json] [--quick]
"""

import asyncio
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness import machine, run_bench, versions
from bench.servers import of_tests

from aks_inference_runtime.api.content import file_digests, model_files
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.models.azure import PARALLEL
from aks_inference_runtime.models.stores import Upload
from aks_inference_runtime.models.stores.blob import BlobStore
from aks_inference_runtime.models.stores.store import StoredFile

MB = 1024 * 1024
HASHED_MB, QUICK_HASHED_MB = 1024, 256
SENT_MB, QUICK_SENT_MB = 512, 96
ROUNDS, QUICK_ROUNDS = 5, 3
HASH_TO_REACH, UPLOAD_TO_REACH = 1.5, 1.3


def write_model(folder: Path, total_mb: int) -> Path:
    """Files as models have them: one of half the size, the rest in eight equal ones and a few small."""
    model = folder / f"model-{total_mb}"
    model.mkdir()
    block = os.urandom(MB)
    sizes = [total_mb // 2, *[total_mb // 16] * 8]
    for number, size in enumerate(sizes):
        with (model / f"part-{number}.bin").open("wb") as file:
            for piece in range(size):
                file.write(piece.to_bytes(8) + number.to_bytes(8) + block[16:])
    for number in range(20):
        (model / f"conf-{number}.json").write_bytes(os.urandom(2_000))
    return model


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def hashing(model: Path, rounds: int) -> dict[str, float]:
    """Medians of seconds: ours, and `sha256sum` with as many processes as cores."""
    files = model_files(model)
    cores = os.cpu_count() or 1
    names = b"\0".join(str(path).encode() for path in sorted(files.values(), key=lambda path: -path.stat().st_size))

    def sha256sum() -> None:
        command = ["xargs", "-0", "-n", "1", "-P", str(cores), "sha256sum"]
        subprocess.run(command, input=names, check=True, stdout=subprocess.DEVNULL)

    pairs = [(timed(lambda: file_digests(files)), timed(sha256sum)) for _ in range(rounds)]
    return {"ours_s": median(pair[0] for pair in pairs), "sha256sum_s": median(pair[1] for pair in pairs)}


def uploading(azurite: Any, model: Path, rounds: int) -> dict[str, float]:
    """Medians of seconds: `ModelStore.put`, and `upload_blob` for each file at the same parallelism."""
    container = azurite.container("bench")
    files = model_files(model)
    digests = file_digests(files)
    stored = {name: StoredFile(path, digests[name], path.stat().st_size) for name, path in files.items()}

    def ours() -> None:
        store = BlobStore(azurite.account, "bench", uuid.uuid4().hex, client=lambda: container)
        asyncio.run(store.put(Upload("model", stored, ModelFacts())))

    def sdk() -> None:
        prefix = uuid.uuid4().hex
        for name, path in files.items():
            with path.open("rb") as file:
                container.upload_blob(f"{prefix}/{name}", file, max_concurrency=PARALLEL)

    # The SDK's own settings for large files, so that both send blocks of the same size.
    container._config.max_block_size = 8 * MB
    container._config.max_single_put_size = 8 * MB
    pairs = [(timed(ours), timed(sdk)) for _ in range(rounds)]
    return {"ours_s": median(pair[0] for pair in pairs), "sdk_s": median(pair[1] for pair in pairs)}


async def measure(*, quick: bool) -> dict[str, Any]:
    """Both comparisons."""
    return await asyncio.to_thread(_measure, quick)


def _measure(quick: bool) -> dict[str, Any]:
    of_models = of_tests("models")
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        hashed = hashing(write_model(work, QUICK_HASHED_MB if quick else HASHED_MB), rounds)
        (work / "azurite").mkdir()
        with of_models.running_azurite(work / "azurite") as azurite:
            sent = uploading(azurite, write_model(work, QUICK_SENT_MB if quick else SENT_MB), rounds)
    return {
        "hash_vs_sha256sum": round(hashed["ours_s"] / hashed["sha256sum_s"], 3),
        "upload_vs_sdk": round(sent["ours_s"] / sent["sdk_s"], 3),
        "to_reach": {"hash_vs_sha256sum": HASH_TO_REACH, "upload_vs_sdk": UPLOAD_TO_REACH},
        "hash": {"megabytes": QUICK_HASHED_MB if quick else HASHED_MB, **hashed},
        "upload": {"megabytes": QUICK_SENT_MB if quick else SENT_MB, "parallel": PARALLEL, **sent},
        "rounds": rounds,
        "quick": quick,
        "machine": machine(),
        "versions": versions("azure-storage-blob") | {"azurite": of_models.AZURITE.partition("@")[2]},
    }


def table(result: dict[str, Any]) -> str:
    """For people."""
    hashed, sent = result["hash"], result["upload"]
    return "\n".join(
        [
            f"hashing {hashed['megabytes']} MB: {hashed['ours_s']:.2f} s, sha256sum {hashed['sha256sum_s']:.2f} s "
            f"on as many cores: {result['hash_vs_sha256sum']:.2f} x (to reach: {HASH_TO_REACH:g} x or less)",
            f"upload of {sent['megabytes']} MB to Azurite: {sent['ours_s']:.2f} s, upload_blob {sent['sdk_s']:.2f} s "
            f"at {sent['parallel']} at once: {result['upload_vs_sdk']:.2f} x (to reach: {UPLOAD_TO_REACH:g} x or less)",
        ]
    )


if __name__ == "__main__":
    run_bench("models", (__doc__ or "").split("\n", maxsplit=1)[0], measure, table)
