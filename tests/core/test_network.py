"""Environment variables of proxies, certificates and the model hub: wrong ones are named before anything is asked."""

import socket
import sys

import pytest

from domainbed_sage.core import network
from domainbed_sage.core.errors import UserError

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
ALL = [*NAMES, *(name.lower() for name in NAMES), *network.CERTIFICATE_FILES, "SSL_CERT_DIR", "HF_ENDPOINT"]


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in ALL:
        monkeypatch.delenv(name, raising=False)


def mistakes():
    try:
        network.check_variables()
    except UserError as error:
        return list(error.mistakes)
    return []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:9/", "Found 'socks://127.0.0.1:9/': its scheme is another one. Correct or"),
        ("https_proxy", "ftp://host", "https_proxy should be the address of a proxy, such as http://proxy.example.org"),
        (
            "HTTPS_PROXY",
            "http://127.0.0.1:port",
            "Found 'http://127.0.0.1:port': Invalid port: 'port'. Correct or unset",
        ),
        ("HTTP_PROXY", "http://", "it names no host"),
        ("HTTP_PROXY", "http://user:p@ss@host:port", "Found 'http://***@host:port'"),
        ("HTTP_PROXY", "user:p@ss@host:port", "Found '***@host:port'"),
        (
            "SSL_CERT_FILE",
            "/nowhere/ca.pem",
            "Found '/nowhere/ca.pem': No such file or directory. Correct or unset it.",
        ),
        (
            "SSL_CERT_FILE",
            "/etc",
            "SSL_CERT_FILE should be a file of certificates (PEM). Found '/etc': Is a directory.",
        ),
        ("SSL_CERT_FILE", "/etc/passwd", "it holds no certificate"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem", "REQUESTS_CA_BUNDLE should be a file of certificates (PEM)."),
        ("CURL_CA_BUNDLE", "/etc/passwd", "it holds no certificate"),
        ("SSL_CERT_DIR", "/nowhere", "SSL_CERT_DIR should be a folder of certificates. Found '/nowhere'"),
        ("HF_ENDPOINT", "hf-mirror.example", "HF_ENDPOINT should be the address of the model hub or of a mirror of it"),
        ("HF_ENDPOINT", "http://host:port", "Found 'http://host:port'"),
        ("HF_ENDPOINT", "http://", "Found 'http://'"),
        ("HF_ENDPOINT", "ftp://host", "Found 'ftp://host'"),
    ],
)
def test_a_wrong_variable_is_named_with_what_it_should_be(monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    (mistake,) = mistakes()
    assert mistake.startswith(f"{name} should be ")
    assert words in mistake
    assert "p@ss" not in mistake


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "127.0.0.1:9"),
        ("HTTPS_PROXY", "https://user:p@ss@127.0.0.1:9"),
        ("all_proxy", "http://[::1]:3128/"),
        ("HTTPS_PROXY", ""),
        ("NO_PROXY", "localhost,[::1],::1,10.0.0.0/8,[,*."),
        ("SSL_CERT_FILE", "ca.pem"),
        ("REQUESTS_CA_BUNDLE", "/etc"),  # requests takes a folder, too
        ("SSL_CERT_DIR", "/nowhere:/etc"),
        ("SSL_CERT_FILE", ""),
        ("HF_ENDPOINT", "https://hf-mirror.example/path/"),
        ("HF_ENDPOINT", ""),
    ],
)
def test_a_right_variable_is_none_of_them(monkeypatch, tmp_path, name, value):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    monkeypatch.setenv(name, value)
    assert mistakes() == []


def test_all_of_them_stand_in_one_message(monkeypatch):
    for name in ("HTTPS_PROXY", "SSL_CERT_FILE", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "socks://x")
    with pytest.raises(UserError, match="3 mistakes in the environment variables:"):
        network.check_variables()


def test_socks_needs_another_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert mistakes() == [
        "ALL_PROXY names a SOCKS proxy, which needs socksio. Found 'socks5://127.0.0.1:9'. Run: pip install socksio"
    ]


def test_a_failing_connection_names_the_proxy_in_between(monkeypatch):
    assert network.advice("https://files.example/a.zip") == ""
    monkeypatch.setenv("ALL_PROXY", "http://me:secret@far:9")
    expected = (
        " It goes through the proxy http://***@far:9 of ALL_PROXY: correct the variable, unset it, or add "
        "files.example to NO_PROXY."
    )
    assert network.advice("https://files.example/a.zip") == expected
    monkeypatch.setenv("HTTP_PROXY", "http://plain:9")
    assert network.advice("https://files.example/a.zip") == expected
    assert "http://plain:9 of HTTP_PROXY" in network.advice("http://files.example/a.zip")
    monkeypatch.setenv("https_proxy", "near:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://not-read:9")
    assert "the proxy near:9 of https_proxy" in network.advice("https://files.example/a.zip")
    monkeypatch.setenv("NO_PROXY", "files.example")
    assert network.advice("https://files.example/a.zip") == ""


def test_the_hubs_address(monkeypatch):
    assert network.hub() == "https://huggingface.co"
    assert network.advice("https://huggingface.co/x") == ""
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror:9/")
    assert network.hub() == "http://mirror:9"
    assert network.advice("http://mirror:9") == " HF_ENDPOINT names this address."


CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUeCWznh/RkP4yJT/yTAB3c+RyETgwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjUxMDQzNTZaGA8yMTI2MTEwMTEwNDM1
NlowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABM6D
af6RcH5F/FP6PPYKEKs7sC9+nwIAu+DOmvjHajNMKSVO9T5LesdKT2cn3avITg2r
OFjwxFqFCKwAH3x6MN6jUzBRMB0GA1UdDgQWBBTUTjefpZU5GSEn1bcKIwZ0mVEy
gTAfBgNVHSMEGDAWgBTUTjefpZU5GSEn1bcKIwZ0mVEygTAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQDjlCR5cUi+ICpOrq5/h5tk6XyWvntR+EAm
/ZDE3MK3lQIgf1uIpUjJnkJvEASDGDt39ps2viigVETHq4H86BKc3o0=
-----END CERTIFICATE-----
"""


# Whether anybody is there


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_host_that_takes_connections_is_reached(port):
    network.check_reachable(f"http://127.0.0.1:{port}/x")


def test_a_host_that_refuses_is_named():
    with pytest.raises(UserError, match=r"^127\.0\.0\.1 cannot be reached \(Connection refused\)\.$"):
        network.check_reachable(f"http://127.0.0.1:{free_port()}/x")


def test_a_name_that_nobody_knows_is_named(monkeypatch):
    def unknown(address, timeout):
        raise socket.gaierror(-2, f"Name or service not known, port {address[1]}")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(UserError, match=r"^hub\.example cannot be reached \(Name or service not known, port 443\)"):
        network.check_reachable("https://hub.example/x")


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_proxy_in_between_is_what_has_to_be_reached(monkeypatch, port, scheme):
    monkeypatch.setenv("https_proxy", f"{scheme}127.0.0.1:{port}")
    network.check_reachable("https://hub.example/x")
    monkeypatch.setenv("https_proxy", f"{scheme}127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"127\.0\.0\.1 cannot be reached .*It goes through the proxy .* of https"):
        network.check_reachable("https://hub.example/x")


def test_who_does_not_answer_may_be_busy(monkeypatch):
    def slow(address, timeout):
        assert timeout == network.WAIT_S
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", slow)
    network.check_reachable("https://hub.example/x")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "x", "http://[::1/x", "http://127.0.0.1:port/x"])
def test_what_is_no_address_is_left_to_others(url):
    network.check_reachable(url)
