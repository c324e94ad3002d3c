"""An AKS cluster for serving: overlay network, a pool that scales, one of spare capacity, the runtime on it.

`pulumi config set image <registry>/<image>` names the runtime's image; without it only the cluster is made.
"""

import pulumi

from aks_inference import AksInferenceCluster

config = pulumi.Config()
image = config.get("image")

cluster = AksInferenceCluster(
    "scoring",
    location=config.get("location") or "westeurope",
    network={"plugin": "azure", "plugin_mode": "overlay", "dataplane": "cilium", "policy": "cilium"},
    pools=[
        {
            "name": "cpu",
            "vm_size": "Standard_D4s_v5",
            "autoscale": True,
            "min_count": 3,
            "max_count": 12,
            "zones": ["1", "2", "3"],
        },
        {"name": "spare", "vm_size": "Standard_D8s_v5", "spot": True, "count": 2},
    ],
    system_pool={"zones": ["1", "2", "3"]},
    kubernetes_version="1.35",
    upgrade_channel="patch",
    maintenance_windows=[{"applies_to": "cluster", "day_of_week": "Sunday", "start_time": "02:00"}],
    security={"workload_identity": True, "image_cleaner": True, "image_cleaner_interval_hours": 168},
    runtime={"image": image} if image else None,
)

pulumi.export("cluster", cluster.cluster_name)
pulumi.export("hosts", cluster.required_hosts)
