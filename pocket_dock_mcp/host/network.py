"""What it takes to reach the network from this machine: its proxies, and the authorities that it trusts."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Of Debian and what it is the base of, of Red Hat, of SUSE, and of the rest."""
_MAX_BUNDLE = 4 * 1024 * 1024
"""Bytes. A bundle of all the world's authorities has a quarter of a million."""
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy variables that are set, each in both spellings: programs look at one or the other."""
    found = {}
    for name in _PROXIES:
        if value := environ.get(name) or environ.get(name.upper()):
            found[name] = found[name.upper()] = value
    return found


def read_bundle(environ: Mapping[str, str]) -> bytes | None:
    """Return the certificate authorities that the environment names instead of the usual ones, if any."""
    for name in _BUNDLES:
        if path := environ.get(name):
            bundle = _read_certificates(Path(path))
            if bundle is not None:
                return bundle
    return None


def system_bundle() -> bytes | None:
    """Return the certificate authorities that the system's own programs trust, if they are in one file."""
    named = ssl.get_default_verify_paths().cafile
    for path in (*([named] if named else []), *_SYSTEM_BUNDLES):
        if (bundle := _read_certificates(Path(path))) is not None:
            return bundle
    return None


def _read_certificates(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BUNDLE + 1)
    except OSError:
        return None
    # The context goes to the engine: nothing but certificates may get into it by a misguided variable.
    is_bundle = _CERTIFICATE in content and b"PRIVATE KEY" not in content and len(content) <= _MAX_BUNDLE
    return content if is_bundle else None
