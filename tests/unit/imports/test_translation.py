"""Whose configuration a text is."""

import pytest

from relayd.imports import Dialect
from relayd.imports.translation import detect, translate
from tests.unit.imports.reading import services


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("0.0.0.0 80 10.0.0.1 80\n", Dialect.RINETD),
        ("# all of it\nallow 10.*\n", Dialect.RINETD),
        ("logfile /var/log/rinetd.log\n0 80/udp a 80/udp [timeout=5]\n", Dialect.RINETD),
        ("listen a\n bind :80\n server a 10.0.0.1:80\n", Dialect.HAPROXY),
        ("global\n daemon\ndefaults\n mode tcp\n", Dialect.HAPROXY),
        ("frontend a # here\r\n", Dialect.HAPROXY),
        ("listen a 10.0.0.1:80\n", Dialect.HAPROXY),
        ("stream {\n server {\n listen 80;\n }\n}\n", Dialect.NGINX),
        ("server { listen 80; proxy_pass a:1; }\n", Dialect.NGINX),
        ("stream\n{\n  upstream a {\n", Dialect.NGINX),
        ("", None),
        ("# a comment\n\n", None),
        ("[listeners.web]\nbind = ':80'\n", None),
        ("hello world\n", None),
        ("0 80 a 80\nlisten a\n", None),
    ],
)
def test_detect(text: str, dialect: Dialect | None) -> None:
    assert detect(text) is dialect


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("0 http a 80\r\n", Dialect.RINETD),
        ("listen tcp-80\r\n bind :80\r\n server a a:80\r\n", Dialect.HAPROXY),
        ("server {\r\n listen 80;\r\n proxy_pass a:80;\r\n}\r\n", Dialect.NGINX),
    ],
)
def test_translate(text: str, dialect: Dialect) -> None:
    found = translate(text, dialect, services)
    assert [draft.name for draft in found.drafts] == ["tcp-80"]
    assert [place.text for place in found.drafts[0].targets] == ["a:80"]
    assert not found.leftovers
