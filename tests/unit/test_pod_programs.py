"""The programs of the runtime's pods: whoever reads what they log may stop."""

import subprocess
import sys

PROGRAM = """
import logging
from aks_inference_runtime.kubernetes import entry

async def work():
    for _ in range(5_000):
        logging.getLogger("program").info("%s", "x" * 1_000)
    print("through", flush=True)

raise SystemExit(entry.serve("program", lambda: work()))
"""


def test_a_log_that_nobody_reads_holds_nothing_up() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            # What it logs is more than a pipe takes, and is not read until it has ended.
            assert program.wait(30) == 0
            assert program.stdout is not None
            assert program.stderr is not None
            assert program.stdout.read() == "through\n"
            assert " INFO program xxx" in program.stderr.read()
        finally:
            program.kill()
