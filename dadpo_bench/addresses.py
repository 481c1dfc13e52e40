"""Addresses of servers: what may be written down of them."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from dadpo_bench.errors import UserError

LOCAL = "local"
"""What this machine is called, whatever the port."""


def checked_url(url: str, setting: str) -> SplitResult:
    """The parts of a server's URL. Raises `UserError`, which names the setting, for none and for one with a secret."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        raise UserError(f"{setting} is no URL; write it as http://127.0.0.1:8000/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{setting} must start with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        # It is stored with the run's recipe.
        raise UserError(f"{setting} must hold no user, password or query: put the key into an environment variable")
    return parts


def host_of(parts: SplitResult) -> str:
    """The host, without its port; `LOCAL` for this machine."""
    host = parts.hostname or ""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return LOCAL if local else host
