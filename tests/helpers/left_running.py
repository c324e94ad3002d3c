"""Processes that a test's command left behind."""

from pathlib import Path

import psutil


def running_under(folder: Path) -> dict[int, str]:
    """Command lines that name a folder, by process."""
    words = {p.pid: " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])}
    return {pid: line for pid, line in words.items() if str(folder) in line}
