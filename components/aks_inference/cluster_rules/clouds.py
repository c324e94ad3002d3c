"""Names of the services of each cloud; a private cloud gives its own."""

from dataclasses import dataclass

from aks_inference.facts import region_named, short_region


@dataclass(frozen=True)
class CloudNames:
    """Host suffixes of a cloud."""

    name: str
    """`AzureCloud`, `AzureUSGovernment`, `AzureChinaCloud`, or a private cloud's."""
    api_server: str
    """Pattern with `<region>`."""
    resource_manager: str
    sign_in: str
    registry: str
    blob: str
    key_vault: str
    scoring: str
    """Suffix of public scoring names, with `<region>`."""
    tables: str | None
    """The cloud whose rows of the host table apply; None: none do."""


PUBLIC = CloudNames(
    name="AzureCloud",
    api_server="hcp.<region>.azmk8s.io",
    resource_manager="management.azure.com",
    sign_in="login.microsoftonline.com",
    registry="azurecr.io",
    blob="blob.core.windows.net",
    key_vault="vault.azure.net",
    scoring="<region>.cloudapp.azure.com",
    tables="AzureCloud",
)
US_GOVERNMENT = CloudNames(
    name="AzureUSGovernment",
    api_server="hcp.<region>.cx.aks.containerservice.azure.us",
    resource_manager="management.usgovcloudapi.net",
    sign_in="login.microsoftonline.us",
    registry="azurecr.us",
    blob="blob.core.usgovcloudapi.net",
    key_vault="vault.usgovcloudapi.net",
    scoring="<region>.cloudapp.usgovcloudapi.net",
    tables="AzureUSGovernment",
)
CHINA = CloudNames(
    name="AzureChinaCloud",
    api_server="hcp.<region>.cx.prod.service.azk8s.cn",
    resource_manager="management.chinacloudapi.cn",
    sign_in="login.chinacloudapi.cn",
    registry="azurecr.cn",
    blob="blob.core.chinacloudapi.cn",
    key_vault="vault.azure.cn",
    scoring="<region>.cloudapp.chinacloudapi.cn",
    tables="AzureChinaCloud",
)
_CLOUDS = {cloud.name: cloud for cloud in (PUBLIC, US_GOVERNMENT, CHINA)}


_BEGINNINGS = {"china": CHINA, "usgov": US_GOVERNMENT, "usdod": US_GOVERNMENT}
"""Of the names of all regions of a sovereign cloud; none of the public cloud's begins so."""


def cloud_of(location: str | None) -> CloudNames:
    """The cloud of a region; of one that the list does not know by the beginning of its name, else the public one."""
    if location is None:
        return PUBLIC
    if (region := region_named(location)) is not None:
        return _CLOUDS[region.cloud]
    short = short_region(location)
    return next((cloud for start, cloud in _BEGINNINGS.items() if short.startswith(start)), PUBLIC)
