"""Where a router and the endpoints behind it are reached: the same for who declares them and for who tells. Pure."""

from urllib.parse import urlsplit

from aks_inference_runtime.api.endpoint import Protocol
from aks_inference_runtime.api.kubernetes import ROUTER_NAME


def router_url(namespace: str, address: str | None) -> str:
    """Of a router that has no name of its own: its load balancer's address, else its Service's within the cluster."""
    host = address or f"{ROUTER_NAME}.{namespace}.svc"
    return f"http://[{host}]" if ":" in host else f"http://{host}"


def endpoint_addresses(url: str, name: str, protocol: Protocol) -> tuple[str, str]:
    """Where an endpoint scores and where it describes itself: of a gRPC endpoint host and port for a channel, and the
    name that calls give; it describes itself nowhere."""
    if protocol is Protocol.GRPC:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = "" if parts.port else f":{443 if secure else 80}"
        return f"{'grpcs' if secure else 'grpc'}://{parts.netloc}{port}/{name}", ""
    service = f"{url}/api/v1/service/{name}"
    return f"{service}/score", f"{service}/swagger.json"
