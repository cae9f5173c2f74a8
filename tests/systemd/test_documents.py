"""What the documents tell an operator to type works, on a system where the package is installed.

The lines of each page are typed in their order, as root, on a relayd that runs what the page shows first. What stays
out is in tests/typed.py with the reason, and so is what types the lines of other pages.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import PAGES, blocks, name_of
from tests.systemd import package
from tests.systemd.box import CHECKOUT, Box, Service, eventually
from tests.typed import lines_for

LINES = lines_for("tests/systemd/test_documents.py")
TYPED = [page for page in PAGES if any(line.page == name_of(page) for line in LINES)]
#: What lines use that a machine with systemd need not have.
PROGRAMS = ("curl", "dig", "jq")
#: A file of the reader's, by line: it is made before.
FILES = {
    "relayd check -c bad.toml": ("bad.toml", "[listeners.web]\nbind = 5\n"),
    "relayd import /etc/haproxy/haproxy.cfg > relay.toml": (
        "/etc/haproxy/haproxy.cfg",
        "listen web\n mode tcp\n bind :8081\n server one 127.0.0.1:9000\n",
    ),
    "relayd check -c configs/relay.toml": ("configs/relay.toml", (CHECKOUT / "configs/relay.toml").read_text()),
}
#: What a program says by its exit code that is no failure.
ALSO_FINE = {
    "relayd check -c bad.toml": 1,
    "relayd kill --client 192.0.2.7 --yes": 1,  # nobody is there
    "relayd kill --listener web --target 127.0.0.1:9000 --yes": 1,
    "relayd plan": 10,
}
#: Always there: what pages talk about.
BASE = """
include = ["conf.d/*.toml"]
[listeners.web]
bind = "127.0.0.1:80"
targets = ["127.0.0.1:9000"]
[listeners.socket]
bind = "unix:/run/relayd/web.sock"
targets = ["127.0.0.1:9000"]
"""
#: What is typed until it prints what the page shows: the session ends a moment after dig has its answer.
SHOWN = "journalctl -u relayd EVENT=session -n 1 -o cat"
_VARIES = re.compile(r"(?<=127\.0\.0\.1:)\d+|[\d.]+(?=ms)|(?<=id=)\S+")
CHANGE = '[listeners.change]\nbind = "127.0.0.1:7000"\ntargets = ["127.0.0.1:9000"]\n'
RESOLVER = Path(__file__).with_name("resolver.py")
#: The network of the resolver, as docs/how-to/udp-and-dns.md has its addresses.
RESOLVERS_NETWORK = """
ip link add resolver type veth peer name eth0 netns $1
inside="nsenter --target $1 --net"
ip address add 10.0.0.1/24 dev resolver
ip address add 2001:db8::1/64 dev resolver nodad
$inside ip address add 10.0.0.53/24 dev eth0
$inside ip address add 2001:db8::53/64 dev eth0 nodad
ip link set resolver up
$inside ip link set eth0 up
"""


@pytest.fixture(scope="module")
def installed(deb: Path) -> Iterator[Box]:
    with package.bare_box() as box:
        package.install(box, deb)
        box.run("systemd-run", "--unit=http", "python3", "-m", "http.server", "9000", "--bind", "127.0.0.1")
        yield box


def start_resolver(box: Box) -> None:
    """At 10.0.0.53 and 2001:db8::53, for the life of the box; port 53 of the box itself is relayd's."""
    shutil.copy(RESOLVER, box.root / "root")
    unit = ("--unit=resolver", "--property=Type=notify", "--property=PrivateNetwork=yes")
    box.run("systemd-run", *unit, "python3", "/root/resolver.py")
    pid = box.run("systemctl", "show", "--value", "--property=MainPID", "resolver").strip()
    box.run("sh", "-euc", RESOLVERS_NETWORK, "sh", pid)


def test_there_is_something_to_type() -> None:
    assert len(TYPED) >= 9
    assert len(LINES) >= 40


def configure(box: Box, page: Path) -> None:
    """relayd runs on what the page begins with."""
    folder = box.root / "etc/relayd"
    box.run("systemctl", "stop", "relayd.socket", "relayd.service")
    (folder / "relay.toml").write_text(BASE)
    for file in (folder / "conf.d").iterdir():
        file.unlink()
    shown = [block.text for block in blocks(page) if block.kind == "toml" and not block.more]
    first = next(iter(shown), "")
    for text in shown:
        if "[listeners.app]" in text:  # whose targets are drained
            (folder / "conf.d/app.toml").write_text(text)
    if "[listeners.dns]" in first:
        start_resolver(box)
        (folder / "conf.d/page.toml").write_text(first)
    box.run("systemctl", "start", "relayd.service")
    if "[listeners.ssh]" in first:  # the forward that the page adds
        (folder / "conf.d/page.toml").write_text(first)


@pytest.mark.parametrize("page", TYPED, ids=name_of)
def test_every_line_can_be_typed(installed: Box, page: Path) -> None:
    lines = [line.text for line in LINES if line.page == name_of(page)]
    for program in PROGRAMS:
        if shutil.which(program) is None and any(re.search(rf"(^|\| ){program} ", line) for line in lines):
            pytest.skip(f"missing {program}")
    shown = next(filter(None, (block.after(SHOWN) for block in blocks(page))), "")
    here = installed.root / "usr/share/doc/relayd/examples"  # where systemd/relayd.service is, as the page has it
    configure(installed, page)

    def type_(line: str) -> str:
        real = re.sub(r"^kill -USR2 \d+", f"kill -USR2 {Service(installed).main_pid()}", line)
        said = installed.run("sh", "-c", f"cd /usr/share/doc/relayd/examples && {real}\necho exit $?")
        told, code = said.rsplit("exit ", 1)
        assert int(code) in (0, ALSO_FINE.get(line.partition("  #")[0].strip(), 0)), f"{line}\n{said}"
        return told

    for line in lines:
        if line in FILES:
            name, text = FILES[line]
            path = installed.root / name.lstrip("/") if name.startswith("/") else here / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if line.startswith("relayd reload --confirm"):  # of what has been changed before
            (installed.root / "etc/relayd/conf.d/change.toml").write_text(CHANGE)
        if line == SHOWN:
            eventually(lambda: _VARIES.sub("", type_(SHOWN)) == _VARIES.sub("", shown), shown)
        else:
            type_(line)
