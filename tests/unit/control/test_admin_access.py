"""Who may ask the admin API, and for what. What a request says is made up; on real sockets it is in test_admin.py."""

import base64
import contextlib
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.control.admin_access import Access, Asking, Refusal
from relayd.spec import Admin

TOKEN = "correct-horse-battery"
GUARDED = Access(
    Admin(
        token_file="/etc/relayd/token",
        token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest(),
        hosts=("relay.example.com",),
    )
)
OPEN = Access(Admin(hosts=("relay.example.com",)))
BEARER = (f"Bearer {TOKEN}",)


def asking(*, method: str = "GET", host: str = "127.0.0.1:9600", unix: bool = False, **more: Any) -> Asking:
    return Asking(method, unix, **{"hosts": (host,), **more})


def refused(access: Access, who: Asking, *, open_to_all: bool = False) -> Refusal:
    with pytest.raises(Refusal) as caught:
        access.admit(who, open_to_all=open_to_all)
    return caught.value


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:9600",
        "192.0.2.1:80",
        "[::1]",
        "[2001:db8::1]:9600",
        "[::ffff:192.0.2.1]:1",
        "localhost",
        "LocalHost.:9600",
        "relay.example.com",
        "RELAY.example.COM.:9600",
    ],
)
def test_a_host_that_leads_here(host: str) -> None:
    OPEN.admit(asking(host=host))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9600",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "relay.example.com.evil.example",
        "xrelay.example.com",
        "",
        ":9600",
        "127.0.0.1:",
        "127.0.0.1:port",
        "127.0.0.1:9600:9600",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "[127.0.0.1]",
        "[::1",
        "::1",
        "[::1%25eth0]",
        "[::1]evil",
        "127.0.0.1 evil",
        "127.0.0.1,evil.example",
        "127.0.0.1\n",
        "١٢٧.0.0.1",
        "localhost..",
    ],
)
def test_a_host_that_may_be_a_page_of_somebody_else(host: str) -> None:
    refusal = refused(OPEN, asking(host=host))
    assert refusal.status == 421
    assert "[admin] hosts" in str(refusal)
    OPEN.admit(asking(host=host), open_to_all=True)
    OPEN.admit(asking(host=host, unix=True))


@pytest.mark.parametrize("hosts", [(), ("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "evil.example")])
def test_there_is_one_host(hosts: tuple[str, ...]) -> None:
    assert refused(OPEN, Asking("GET", False, hosts)).status == 400


@pytest.mark.parametrize(
    ("method", "origins", "unix", "taken"),
    [
        ("GET", (), False, True),
        ("GET", ("http://127.0.0.1:9600",), False, True),
        ("POST", (), False, True),
        ("POST", ("http://127.0.0.1:9600",), False, False),
        ("GET", ("http://127.0.0.1:9600",), True, False),
        ("GET", ("http://127.0.0.1",), False, False),
        ("GET", ("https://127.0.0.1:9600",), False, False),
        ("GET", ("http://localhost:9600",), False, False),
        ("GET", ("null",), False, False),
        ("GET", ("",), False, False),
        ("GET", ("http://evil.example",), False, False),
        ("GET", ("http://127.0.0.1:9600", "http://evil.example"), False, False),
        ("GET", ("http://127.0.0.1:9600/",), False, False),
    ],
)
def test_a_page_asks_nothing_but_what_our_own_may(
    method: str, origins: tuple[str, ...], unix: bool, taken: bool
) -> None:
    who = asking(method=method, origins=origins, unix=unix)
    if taken:
        OPEN.admit(who)
    else:
        refusal = refused(OPEN, who)
        assert (refusal.status, str(refusal)) == (403, "requests of web pages are not answered")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "authorization",
    [f"Bearer {TOKEN}", f"bearer  {TOKEN} ", basic("", TOKEN), basic("somebody", TOKEN), basic("é", TOKEN)],
)
def test_who_has_the_token(authorization: str) -> None:
    GUARDED.admit(asking(authorizations=(authorization,)))


@pytest.mark.parametrize(
    "authorizations",
    [
        ("Bearer",),
        ("Bearer ",),
        (f"Bearer {TOKEN}x",),
        (f"Bearer {TOKEN[:-1]}",),
        (f"Bearer {TOKEN.upper()}",),
        (f"Bearer {TOKEN} {TOKEN}",),
        (TOKEN,),
        (f"Token {TOKEN}",),
        ("Bearer " + hashlib.sha256(TOKEN.encode()).hexdigest(),),
        ("Bearer \udcff\udcfe",),
        (basic(TOKEN, ""),),
        (basic("user", TOKEN + ":x"),),
        ("Basic !!!",),
        ("Basic " + base64.b64encode(TOKEN.encode()).decode(),),
        ("Basic \udcff",),
        (*BEARER, *BEARER),
        (*BEARER, "Bearer x"),
    ],
)
def test_who_has_not(authorizations: tuple[str, ...]) -> None:
    refusal = refused(GUARDED, asking(authorizations=authorizations))
    assert (refusal.status, str(refusal)) == (401, "this is not the token")
    assert [name for name, _ in refusal.headers] == ["WWW-Authenticate"] * 2
    assert [value.partition(" ")[0] for _, value in refusal.headers] == ["Basic", "Bearer"]


def test_who_says_nothing_is_told_what_to_say() -> None:
    refusal = refused(GUARDED, asking())
    assert (refusal.status, str(refusal)) == (401, "a token is needed: Authorization: Bearer TOKEN")
    assert refusal.headers


def test_where_no_token_is_asked_for() -> None:
    GUARDED.admit(asking(unix=True))
    GUARDED.admit(asking(), open_to_all=True)
    OPEN.admit(asking(authorizations=("Bearer whatever",)))


def test_a_token_that_is_not_known_is_nobodys() -> None:
    unknown = Access(Admin(token_file="${CREDENTIALS_DIRECTORY}/x", token_sha256="-"))
    for authorization in ("Bearer -", "Bearer ", *BEARER):
        assert refused(unknown, asking(authorizations=(authorization,))).status == 401


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("changes", [False, True])
def test_read_only_is_for_tcp(unix: bool, changes: bool) -> None:
    access = Access(Admin(read_only=True))
    who = asking(method="POST", unix=unix)
    if changes and not unix:
        with pytest.raises(Refusal, match="read_only") as caught:
            access.permit(who, changes=changes)
        assert caught.value.status == 403
    else:
        access.permit(who, changes=changes)
    OPEN.permit(who, changes=changes)


def test_who_is_told_what_is_private() -> None:
    assert not OPEN.tells_private(asking())
    assert OPEN.tells_private(asking(unix=True))
    assert GUARDED.tells_private(asking(authorizations=BEARER))
    assert not Access(Admin(read_only=True)).tells_private(asking())


def test_the_token_is_in_no_text() -> None:
    who = asking(authorizations=BEARER)
    assert TOKEN not in repr(who)
    assert GUARDED.admin.token_sha256 not in repr(GUARDED)


HEADER = st.text(st.characters(max_codepoint=0x17F) | st.sampled_from("\udc80\udcff"), max_size=40)
HEADERS = st.lists(
    HEADER
    | st.from_regex(r"(\[[0-9a-f:.]*\]|[a-zL.0-9-]{0,12})(:[0-9]*)?", fullmatch=True)
    | HEADER.map(lambda text: f"Basic {text}")
    | HEADER.map(lambda text: f"Bearer {text}")
    | st.binary(max_size=20).map(lambda data: f"Basic {base64.b64encode(data).decode()}"),
    max_size=3,
)


@given(st.sampled_from(["GET", "POST", "X"]), HEADERS, HEADERS, HEADERS)
def test_whatever_headers_say_is_an_answer(
    method: str, hosts: list[str], origins: list[str], authorizations: list[str]
) -> None:
    who = Asking(method, False, hosts, origins, authorizations)
    # Nobody can guess the token; and who is admitted without one has come by an address, from no page but our own.
    assert refused(GUARDED, who).status in (400, 401, 403, 421)
    with contextlib.suppress(Refusal):
        OPEN.admit(who)
        assert len(hosts) == 1
        assert not origins or (method, origins) == ("GET", [f"http://{hosts[0].lower()}"])
