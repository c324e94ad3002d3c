"""The quickstart's command line: the standard library only, so that it can be asked before anything is installed.

Run by itself it answers `--help` and wrong options; exit code 0 then means that there is something to do.
"""

import argparse
import sys
from pathlib import Path

ANSWERED = 64
"""Exit code where all is said."""
DESCRIPTION = """
The quickstart: the main job of this package, end to end, on this machine. No Azure, Kubernetes, Docker or root.

With --target kubernetes the same on a cluster: images and models go into the registry that you name.
"""
CLUSTER_ONLY = ("kubeconfig", "context", "registry", "image", "base_image", "secret", "service_type")
SERVICE_TYPES = ("LoadBalancer", "NodePort", "ClusterIP")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./quickstart", description=DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="one JSON object a step, and nothing else, on stdout")
    parser.add_argument("--keep", action="store_true", help="leave everything running; says how to destroy it")
    parser.add_argument("--engine", choices=("embedded", "pulumi"), default="embedded", help="what applies the program")
    parser.add_argument("--port", type=_port, default=8890, help="of the scoring URIs (default 8890, or a free one)")
    parser.add_argument("--target", choices=("local", "kubernetes"), default="local", help="where it runs")
    cluster = parser.add_argument_group("with --target kubernetes")
    cluster.add_argument("--kubeconfig", type=Path, help="of the cluster (default: KUBECONFIG, or ~/.kube/config)")
    cluster.add_argument("--context", help="of the kubeconfig (default: its current one)")
    cluster.add_argument("--registry", help="`host[/repository]` for models and images; required")
    cluster.add_argument("--image", help="of routers and replicas (default: built, and pushed to the registry)")
    cluster.add_argument("--base-image", help="of the images that are built (default: the official Python image)")
    cluster.add_argument(
        "--secret", help="Secret of the namespace `default` with a login of the registry, for the pods"
    )
    cluster.add_argument("--service-type", choices=SERVICE_TYPES, help="of the router (default: LoadBalancer)")
    options = parser.parse_args()
    given = [name for name in CLUSTER_ONLY if getattr(options, name) is not None]
    if options.target == "local" and given:
        parser.error(f"--{given[0].replace('_', '-')} is for --target kubernetes")
    if options.target == "kubernetes" and options.registry is None:
        parser.error("--target kubernetes needs --registry: models and images reach the nodes through one")
    return options


def _port(text: str) -> int:
    if len(text) > 5 or not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no port: give a number from 1 to 65,535")
    return int(text)


if __name__ == "__main__":
    try:
        arguments()
    except SystemExit as end:
        sys.exit(end.code or ANSWERED)
