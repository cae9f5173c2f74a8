"""The page of the admin API in a real browser: desk and phone, light and dark, with scripts and without.

Screenshots of it are left in the test's directory, for who wants to look.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relayd.address import SocketAddress
from tests import ports
from tests.e2e.conftest import echo
from tests.e2e.daemon import Daemon
from tests.e2e.test_reload import reload
from tests.soak.browser import Browser, Page, executable

__all__ = ["echo"]  # a fixture

pytestmark = pytest.mark.soak

DESK, PHONE = 1200, 390
#: Between two times that a client says something: so that rates are to be seen, and no processor is busy with it.
_PACE_S = 0.05
_HEAD = '[daemon]\nworkers = 2\ndrain_timeout = "200ms"\n[log]\nformat = "json"\n'
#: A name that is not to become a part of the page; of listeners' names nothing like it is taken.
_SEARCHED = "</title><img src=x onerror=alert(1)>"
#: In points; a phone would make its window as wide as the page.
_WIDTH = "Math.max(document.documentElement.scrollWidth, window.innerWidth)"
#: Tables that have to be moved to be read; with longer numbers than these some have to.
_CUT_OFF = "Array.from(document.querySelectorAll('.table')).filter(one => one.scrollWidth > one.clientWidth).length"
_ROWS = "Array.from(document.querySelectorAll('#{table} tbody tr'), row => row.innerText)"


@dataclass(frozen=True, slots=True)
class Relay:
    """A daemon with traffic, and where its page is."""

    daemon: Daemon
    url: str


def talk(clients: list[socket.socket], enough: threading.Event) -> None:
    """Each client says something, some more than others, until it is enough."""
    turn = 0
    while not enough.wait(_PACE_S):
        turn += 1
        for number, client in enumerate(clients):
            with contextlib.suppress(OSError):  # the daemon may be gone
                client.sendall(b"x" * (200 * (number + 1) * (1 + turn % 7)))
                client.recv(1 << 16)


@pytest.fixture
def relay(tmp_path: Path, echo: Callable[[str], SocketAddress]) -> Iterator[Relay]:
    """With streams, datagrams and a Unix socket, a target that is down, and clients that talk."""
    port, down = ports.free_range(1), ports.free_range(1)
    good = echo("inet")
    config = f"""{_HEAD}
[admin]
listen = "127.0.0.1:{port}"

[pools.app]
targets = ["{good}", "127.0.0.1:{down}"]
health_check = {{ type = "tcp", interval = "500ms", timeout = "200ms", fall = 1 }}

[listeners.web]
bind = "127.0.0.1:0"
pool = "app"

[listeners.postgres-replica]
bind = "127.0.0.1:0"
targets = ["{good}"]

[listeners.local]
bind = "unix:{tmp_path}/l.sock"
targets = ["{echo("inet6")}"]

[listeners.dns]
type = "dgram"
bind = "127.0.0.1:0"
targets = ["127.0.0.1:{down}"]
"""
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Daemon(config, tmp_path))
        daemon.wait_for_event("target_down")
        clients = [stack.enter_context(daemon.connect("web")) for _ in range(5)]
        clients += [stack.enter_context(daemon.connect("postgres-replica")) for _ in range(2)]
        clients.append(stack.enter_context(daemon.connect("local")))
        enough = threading.Event()
        talking = threading.Thread(target=talk, args=(clients, enough))
        talking.start()
        stack.callback(talking.join)
        stack.callback(enough.set)
        yield Relay(daemon, f"http://127.0.0.1:{port}/")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = executable()
    if not program:
        pytest.skip("missing Chromium")
    with Browser(program, tmp_path) as running:
        yield running


def rows(page: Page, table: str) -> list[str]:
    found: list[str] = page.value(_ROWS.replace("{table}", table))
    return found


def shows_all(page: Page, width: int) -> None:
    """What the fixture has made is there to be read."""
    assert [row.split()[0] for row in rows(page, "listeners")] == ["web", "postgres-replica", "local", "dns"]
    targets = rows(page, "targets")
    assert len(targets) == 5
    assert "down" in targets[0]  # the worst first
    assert "connection refused" in targets[0]
    assert len(rows(page, "connections")) == 8
    assert page.value(_WIDTH) == width
    assert page.value(_CUT_OFF) == 0


def no_complaints(page: Page) -> None:
    assert page.complaints() == []


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_it_can_be_read(
    browser: Browser, relay: Relay, tmp_path: Path, width: int, *, dark: bool, scripts: bool
) -> None:
    page = browser.page(width=width, dark=dark, scripts=scripts)
    page.open(relay.url)
    if scripts:
        page.wait_for("document.querySelectorAll('#listeners svg').length >= 3")  # there is something to draw
    shows_all(page, width)
    background = page.value("getComputedStyle(document.body).backgroundColor")
    assert (int(background.strip("rgb()").split(",")[0]) < 64) is dark
    page.screenshot(tmp_path / "page.png")
    assert page.requests() == [relay.url] * len(page.requests())  # and nothing of anybody else
    no_complaints(page)


def test_it_goes_on_by_itself(browser: Browser, relay: Relay) -> None:
    page = browser.page(width=DESK)
    page.open(relay.url)
    # A node that nothing has changed stays, with whatever somebody does there.
    page.value("window.kept = document.querySelector('#listeners-rows th')")
    before = rows(page, "listeners")[0]
    now = "document.querySelector('#listeners-rows tr').innerText"
    page.wait_for(f"{now} !== {json.dumps(before)}")
    page.wait_for("document.querySelectorAll('#listeners svg').length >= 3")
    with relay.daemon.connect("web") as one_more:
        one_more.sendall(b"x")
        page.wait_for("document.querySelectorAll('#connections-rows tr').length === 9")
    page.wait_for("document.querySelectorAll('#connections-rows tr').length === 8")
    no_complaints(page)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_a_search_and_an_order(browser: Browser, relay: Relay, *, scripts: bool) -> None:
    page = browser.page(width=DESK, scripts=scripts)
    page.open(f"{relay.url}?q=postgres-replica&sort=age")
    assert len(rows(page, "connections")) == 2
    assert page.value("document.getElementById('q').value") == "postgres-replica"
    page.open(page.value("document.querySelector('#orders a:last-child').href"))
    assert page.value("location.search") == "?q=postgres-replica&sort=rate"
    assert page.value("document.querySelector('#orders [aria-current]').innerText") == "fastest"
    assert len(rows(page, "connections")) == 2
    page.open(f"{relay.url}?q=127.0.0.0/8")
    assert len(rows(page, "connections")) == 7  # and not the one of the Unix socket
    page.open(f"{relay.url}?q=%3C/title%3E%3Cimg%20src=x%20onerror=alert(1)%3E")
    assert _SEARCHED in page.value("document.getElementById('connections-note').innerText")
    assert page.value("document.images.length") == 0
    no_complaints(page)


def test_by_the_keyboard(browser: Browser, relay: Relay) -> None:
    page = browser.page(width=DESK)
    page.open(relay.url)
    page.press("Tab")  # the first thing that can be done is to search
    assert page.value("document.activeElement.id") == "q"
    for letter in "dns":
        page.press(letter)
    page.wait_for("location.search === '?q=dns' && document.querySelector('#connections .empty')")
    assert page.value("document.activeElement.id") == "q"  # what was typed in stays where it is
    page.press("Enter")
    page.wait_for("location.search === '?q=dns&sort=age'")
    no_complaints(page)


def test_it_says_when_nobody_answers_and_goes_on(browser: Browser, relay: Relay) -> None:
    page = browser.page(width=PHONE)
    page.open(relay.url)
    pid = relay.daemon.pid
    relay.daemon.stop()
    page.wait_for("document.getElementById('contact').innerText.startsWith('No answer since')")
    shown = rows(page, "listeners")
    assert len(shown) == 4  # as they were
    assert page.value(_WIDTH) == PHONE
    relay.daemon.start_again()
    page.wait_for("document.getElementById('contact').innerText === ''")
    page.wait_for(f"!document.getElementById('life').innerText.includes('pid {pid},')")


def test_it_pauses_while_nobody_looks(browser: Browser, relay: Relay) -> None:
    page = browser.page(width=DESK)
    page.open(relay.url)
    page.hide(hidden=True)
    asked = len(page.requests())
    # Longer than between two questions; it is the browser's own time that has to pass.
    page.value("new Promise(done => setTimeout(done, 5000))")
    assert len(page.requests()) == asked
    before = rows(page, "listeners")[0]
    page.hide(hidden=False)
    page.wait_for(f"document.querySelector('#listeners-rows tr').innerText !== {json.dumps(before)}")
    no_complaints(page)


def test_what_goes_with_it(browser: Browser, relay: Relay) -> None:
    page = browser.page(width=DESK)
    page.open(relay.url)
    headers = page.headers(relay.url)
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
    # What another page of the browser could have it do: nothing.
    page.value("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    page.value("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/x.png'}))")
    assert page.value("window.ran === undefined")
    assert any("Content Security Policy" in each for each in page.complaints())


def test_with_a_token(browser: Browser, tmp_path: Path) -> None:
    token, port = tmp_path / "token", ports.free_range(1)
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef\n")
    config = f"""{_HEAD}
[admin]
listen = "127.0.0.1:{port}"
token_file = "{token}"
[listeners.web]
bind = "127.0.0.1:0"
targets = ["127.0.0.1:9"]
"""
    with Daemon(config, tmp_path):
        page = browser.page(width=DESK)
        page.open(f"http://anybody:0123456789abcdef@127.0.0.1:{port}/")
        assert len(rows(page, "listeners")) == 1
        page.wait_for("document.querySelectorAll('#listeners svg').length === 1")  # which takes two turns
        assert page.value("document.getElementById('contact').innerText") == ""
        assert not [each for each in page.complaints() if "401" not in each]  # it is asked for the token first


def test_a_token_that_is_asked_for_from_now_on(browser: Browser, tmp_path: Path) -> None:
    token, port = tmp_path / "token", ports.free_range(1)
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef\n")
    listener = f'{_HEAD}[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["127.0.0.1:9"]\n'
    with Daemon(listener, tmp_path) as daemon:
        config = f'{listener}[admin]\nlisten = ["{daemon.admin}", "127.0.0.1:{port}"]\n'
        daemon.configure(config)
        daemon.restart()
        page = browser.page(width=DESK)
        page.open(f"http://127.0.0.1:{port}/")
        page.wait_for("document.querySelectorAll('#listeners svg').length === 1")  # it has asked, and was answered
        contact = "document.getElementById('contact').innerText"
        assert reload(daemon, f'{config}token_file = "{token}"\n')["event"] == "reloaded"
        page.wait_for(f"{contact}.startsWith('A token is asked for now.')")
        assert len(rows(page, "listeners")) == 1  # as it was
        assert reload(daemon, config)["event"] == "reloaded"
        page.wait_for(f"{contact} === ''")
