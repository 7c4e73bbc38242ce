"""IP addresses, and the networks that one household, office or customer may own."""

from ipaddress import ip_address, ip_network


def parse_address(host: str) -> str:
    """The IP address in its usual form, or "unknown": a proxy may pass on anything."""
    try:
        return str(ip_address(host))
    except ValueError:
        return "unknown"


def networks(address: str) -> list[str]:
    """The networks of an address that one household, office or customer may own: in IPv4 the address itself, in IPv6
    its /64, /56 and /48."""
    if ":" not in address:
        return [address]
    return [str(ip_network(f"{address}/{prefix}", strict=False)) for prefix in (64, 56, 48)]


def network(address: str) -> str:
    return networks(address)[0]
