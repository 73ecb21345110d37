"""Which addresses may be asked."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_openai import is_loopback, parse_address


@pytest.mark.parametrize(
    "address",
    [
        "https://api.example.com/v1",
        "http://localhost:8090",
        "http://127.1.2.3/v1",
        "http://[::1]:8090/v1",
        "https://example.com:8443/llm/v1?api-version=3",
    ],
)
def test_https_anywhere_and_http_here(address):
    assert parse_address(f" {address} ") == address


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://10.0.0.7:8090/v1", "in clear text"),
        ("http://localhost.example.com", "in clear text"),
        ("http://[::ffff:8.8.8.8]/", "in clear text"),
        ("ftp://localhost", "must be https"),
        ("localhost:8090", "must be https"),
        ("https://", "must be https"),
        ("https:///v1", "must be https"),
        ("https://user:hunter2@example.com", "must hold no user and no password"),
        ("http://127.0.0.1\\@example.com", "must hold no user and no password"),
        ("https://exa mple.com", "must be https"),
        ("https://example.com:99999", "is no address"),
        ("https://[::1", "is no address"),
        ("", "must be https"),
    ],
)
def test_anything_else_is_said_to_be_wrong(address, said):
    with pytest.raises(ValueError, match=said) as raised:
        parse_address(address)
    assert "hunter2" not in str(raised.value)


def test_http_elsewhere_has_to_be_allowed():
    assert parse_address("http://10.0.0.7/v1", plain_http=True) == "http://10.0.0.7/v1"


@given(st.text(alphabet="htps:/.@[]\\#?%0179aelocdm-_ \t\n\u3002", max_size=40))
def test_what_is_allowed_goes_where_it_was_allowed_to_go(tail):
    for scheme in ("http://", "https://", ""):
        try:
            address = parse_address(scheme + tail)
        except ValueError:
            continue
        # The client that sends the key reads the address in its own way.
        asked = httpx.URL(address)
        assert asked.scheme == "https" or is_loopback(asked.host)
        assert not asked.userinfo
