"""Facts about Azure, compiled into the package; each table says where it is from and of which day it is.

`tools/compile_facts.py` makes the files in `data/`. A table is read when it is first asked for.
"""

from aks_inference.facts.hosts import HostRow, host_rows
from aks_inference.facts.prices import PriceList, price_list
from aks_inference.facts.regions import Region, region_named, regions, short_region
from aks_inference.facts.roles import role_id
from aks_inference.facts.sizes import SizeNote, size_note
from aks_inference.facts.versions import KubernetesVersion, version_calendar

__all__ = [
    "HostRow",
    "KubernetesVersion",
    "PriceList",
    "Region",
    "SizeNote",
    "host_rows",
    "price_list",
    "region_named",
    "regions",
    "role_id",
    "short_region",
    "size_note",
    "version_calendar",
]
