"""Puts a fresh transcript of `./quickstart` into the README, shortened where the engine repeats itself.

python tools/transcript.py [FILE]     (FILE: the output of a run; without it one is made)
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"^```text\n\$ \./quickstart\n.*?^```\n", re.MULTILINE | re.DOTALL)
BAR = "  │ "
WIDTH = 190
KEPT = {
    # Step → which of the engine's lines are shown.
    "2": re.compile(r"[+]   |local target|model diab|endpoint diab|check:|effective|%|Resources|to create"),
    "3": re.compile(r"[+]   \S+ \S+ created|Resources|\d created"),
    "5": re.compile(
        r"~  aks-inference:index:LocalEndpoint|effectiveTraffic|trafficPercentile: \d+ =>|to (create|update)"
    ),
    "7": re.compile(r'unchanged|error|"diabetes":|"production":|needs at least|130'),
    "8": re.compile(r"Resources|deleted$"),
}


def shortened(output: str) -> Iterator[str]:
    """The lines that the README shows; what is left out between them is an ellipsis."""
    step = ""
    for line in output.splitlines():
        if heading := re.match(r"(\d)\. ", line):
            step = heading[1]
        elif line.startswith(BAR) and not (step in KEPT and KEPT[step].search(line)):
            line = f"{BAR}…"  # noqa: PLW2901 - the line as it is shown
        if len(line) <= WIDTH and str(ROOT) not in line:
            yield line


def without_repeats(lines: Iterator[str]) -> Iterator[str]:
    """One ellipsis for many."""
    last = None
    for line in lines:
        if not (line == last == f"{BAR}…"):
            yield line
        last = line


def main() -> int:
    """Rewrites the block between ```text and ```."""
    if len(sys.argv) > 1:
        output = Path(sys.argv[1]).read_text()
    else:
        done = subprocess.run([str(ROOT / "quickstart")], capture_output=True, text=True, check=True)
        output = done.stdout
    text = "\n".join(without_repeats(shortened(output))).strip()
    block = f"```text\n$ ./quickstart\n\n{text}\n```\n"
    content = README.read_text()
    if not BLOCK.search(content):
        sys.exit("README.md has no transcript to replace")
    README.write_text(BLOCK.sub(lambda _: block, content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
