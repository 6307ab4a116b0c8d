"""The environment variables that lead to the network: proxies, certificates, the model hub's address.

The HTTP libraries read them for themselves, and report a wrong value by an error that names no variable.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from domainbed_sage.core.errors import UserError, raise_all

ENDPOINT = "HF_ENDPOINT"
CERTIFICATE_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CERTIFICATE_FOLDERS = "SSL_CERT_DIR"
PROXIES = tuple(f"{scheme}_proxy" for scheme in ("http", "https", "all"))
WAIT_S = 10.0
UNVERIFIED = "Where a proxy opens the traffic, name a file with its certificate (PEM) in SSL_CERT_FILE."


def check_variables() -> None:
    """Make sure that the variables can be used, before anything is asked of the network.

    Raises:
        UserError: names each variable that cannot, what it should be, and what was found.
    """
    raise_all([*_proxy_mistakes(), *_certificate_mistakes(), *_endpoint_mistakes()], "the environment variables")


def hub() -> str:
    """Address of the model hub."""
    return os.environ.get(ENDPOINT, "").rstrip("/") or "https://huggingface.co"


def check_reachable(url: str) -> None:
    """Make sure that the first host on the way to an address takes connections: libraries retry for a minute.

    A host that does not answer in time may be busy, and what is no address is explained by who asks for it.

    Raises:
        UserError: its name is not known, it refuses, or there is no network; names the host.
    """
    if not url.startswith(("http://", "https://")):
        return
    try:
        proxy = os.environ.get(_proxy(url), "")
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}" if proxy else url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 1080)
        socket.create_connection((parts.hostname or "", port), WAIT_S).close()
    except (TimeoutError, ValueError):
        return
    except OSError as error:
        raise UserError(f"{parts.hostname} cannot be reached ({error.strerror or error}).{advice(url)}") from None


def unverified(error: Exception) -> bool:
    """Whether a connection failed because the certificate of the other side is not trusted."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def advice(url: str) -> str:
    """What a person can do about a connection to this address that fails, as further sentences with a blank first."""
    parts, told = urlsplit(url), ""
    if os.environ.get(ENDPOINT) and url.startswith(hub()):
        told += f" {ENDPOINT} names this address."
    if name := _proxy(url):
        told += (
            f" It goes through the proxy {_masked(os.environ[name])} of {name}: correct the variable, unset it, or add "
            f"{parts.hostname} to NO_PROXY."
        )
    return told


def _proxy(url: str) -> str:
    """Name of the variable whose proxy is in between; empty if none is."""
    parts = urlsplit(url)
    schemes = () if proxy_bypass(parts.hostname or "") else (parts.scheme, "all")
    return next(filter(None, (_spelling(f"{scheme}_proxy") for scheme in schemes)), "")


def _spelling(name: str) -> str:
    """How a proxy's variable is written where it is set: small letters win, as in the libraries; empty if it is not."""
    return next((spelling for spelling in (name, name.upper()) if os.environ.get(spelling)), "")


def _masked(url: str) -> str:
    """An address without user and password: messages end in logs."""
    before, at, host = url.rpartition("@")
    return f"{before[: before.find('//') + 2] if '//' in before else ''}***@{host}" if at else url


def _proxy_mistakes() -> Iterator[str]:
    import httpx2  # slow to import

    for name in filter(None, map(_spelling, PROXIES)):
        value = os.environ[name]
        url, found = value if "://" in value else f"http://{value}", f"Found {_masked(value)!r}"
        try:
            httpx2.Client(proxy=url, trust_env=False).close()
            reason = "" if httpx2.URL(url).host else "it names no host"
        except ImportError:
            yield f"{name} names a SOCKS proxy, which needs socksio. {found}. Run: pip install socksio"
            continue
        except (ValueError, httpx2.InvalidURL) as error:
            reason = "its scheme is another one" if "scheme" in str(error) else str(error)
        if reason:
            yield (
                f"{name} should be the address of a proxy, such as http://proxy.example.org:3128 or "
                f"socks5://127.0.0.1:1080. {found}: {reason}. Correct or unset it."
            )


def _certificate_mistakes() -> Iterator[str]:
    for name in CERTIFICATE_FILES:
        path = os.environ.get(name, "")
        if not path or (Path(path).is_dir() and name != "SSL_CERT_FILE"):
            continue
        try:
            ssl.create_default_context(cafile=path)
        except OSError as error:  # ssl.SSLError is one
            reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            yield f"{name} should be a file of certificates (PEM). Found {path!r}: {reason}. Correct or unset it."
    folders = os.environ.get(CERTIFICATE_FOLDERS, "")
    if folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        yield (
            f"{CERTIFICATE_FOLDERS} should be a folder of certificates. Found {folders!r}: there is no such folder. "
            "Correct or unset it."
        )


def _endpoint_mistakes() -> Iterator[str]:
    value = os.environ.get(ENDPOINT, "")
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if value and not good:
        yield (
            f"{ENDPOINT} should be the address of the model hub or of a mirror of it, such as https://huggingface.co. "
            f"Found {value!r}. Correct or unset it."
        )
