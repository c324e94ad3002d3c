"""Compiles the table of Azure VM sizes into the package: `python tools/make_vm_sizes.py <azure_vm_sizes.csv> <date>`.

The table comes from generated size lists of microsoft/aspire and kubernetes/autoscaler; its README names commits and
corrections.
"""

import csv
import json
import sys
from pathlib import Path

OUT = Path(__file__).parent.parent / "components" / "aks_inference" / "vm_sizes.json"
SOURCE = "microsoft/aspire AksNodeVmSizes, kubernetes/autoscaler azure_instance_types"


def main(table: str, date: str) -> None:
    """Writes vCPU, GiB and GPUs by size, one size a line."""
    with Path(table).open(newline="", encoding="utf-8") as file:
        rows = {
            row["name"]: [
                int(row["vcpus"]),
                float(row["memory_gib"]),
                int(row["gpus"]),
            ]
            for row in csv.DictReader(file)
        }
    sizes = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(rows.items()))
    head = f'{{"source": {json.dumps(SOURCE)}, "date": {json.dumps(date)}, "sizes": {{'
    OUT.write_text(f"{head}\n{sizes}\n}}}}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
