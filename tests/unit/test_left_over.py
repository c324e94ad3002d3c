"""What a run of the tests leaves is ended, also when the run is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from testbed import left_over

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no process can read the environment of another here")
LIMIT_S = 60
RUN = """
import subprocess, sys, time
from pathlib import Path
from testbed import left_over

folder = Path(sys.argv[1])
watch = left_over.Watch()
(folder / "noted").mkdir()
left_over.note(folder / "noted", [sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(folder / "undone")])
# One that starts another anew when it ends, and one without the mark that its shim has started.
again = "import subprocess, sys\\nwhile True: subprocess.run(['sleep', '600'])"
bare = "import subprocess, sys, time\\nsubprocess.Popen(['sleep', '601'], env={})\\ntime.sleep(602)"
for text in (again, bare):
    subprocess.Popen([sys.executable, "-c", text], start_new_session=True)
# Two of a local cluster, in environments of their own: one names its folder, one its run directory.
cluster, directory = folder / "claimed" / "cluster", folder / "run"
cluster.mkdir(parents=True)
(cluster / "supervisor.json").write_text('{"runDirectory": "%s"}' % directory)
left_over.claim(folder / "claimed")
for named in (cluster, directory / "p0.cfg"):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(603)", named], env={}, start_new_session=True)
while not (folder / "end").exists():
    time.sleep(0.02)
for line in watch.end():
    print(line)
"""


def of_folder(folder: Path) -> list[psutil.Process]:
    """What runs in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("killed", [True, False])
def test_all_that_it_started_ends_with_it(tmp_path: Path, killed: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != left_over.MARK}
    environment["PYTHONPATH"] = str(Path(left_over.__file__).parents[1])
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    deadline = time.monotonic() + LIMIT_S
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as run:
        # The run, who watches over it, those that it started, and the sleep of two.
        while len(of_folder(tmp_path)) < 8:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if killed:
            run.send_signal(signal.SIGKILL)
        else:
            (tmp_path / "end").touch()
        told, _ = run.communicate(timeout=LIMIT_S)
    while of_folder(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (tmp_path / "undone").exists()
    assert not (tmp_path / "noted").exists()
    assert killed or (told.count("sleep 600") >= 1 and told.count("sleep 601") == 1)
