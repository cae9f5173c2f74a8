"""Restart and upgrade in place where something is in the way: what lives lives on (R4, R5)."""

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests import installed
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.lives import BY_RESTART, WAYS, Again, answered
from tests.e2e.test_restart import (
    Echo,
    address_of,
    config,
    dgram,
    echoed,
    nothing_went_wrong,
    stream,
    udp_client,
)
from tests.ports import free_range


def test_what_systemd_has_passed_stays_open(tmp_path: Path, echo: Echo, again: Again) -> None:
    # R4, R5: it is not ours to close, and an upgrade takes it along
    target = echo("inet")
    with socket.create_server(("127.0.0.1", 0)) as made:
        text = config(stream("web", target, "systemd:web"), stream("own", target))
        with Daemon(text, tmp_path, passing=[("web", made)]) as daemon, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(daemon.connect(name)) for name in ("web", "own")]
            assert all(map(echoed, clients))
            for _ in range(2):
                again(daemon)
                assert all(map(echoed, clients))
                with socket.create_connection(made.getsockname(), DEADLINE_S) as new:
                    assert echoed(new)
            nothing_went_wrong(daemon)
            assert daemon.stderr == ""
            assert daemon.stop() == 0


@pytest.mark.parametrize("moment", ["at once", "handing_over", "handed_over"])
def test_a_stop_that_comes_during_an_upgrade_is_a_stop(moment: str, tmp_path: Path, echo: Echo) -> None:
    # R5, R6: or systemd would wait for it, and kill everything in the end
    with Daemon(config(stream("web", echo("inet")), more='drain_timeout = "20s"'), tmp_path) as daemon:
        with daemon.connect("web") as live:
            assert echoed(live)
            daemon.signal(signal.SIGUSR2)
            if moment != "at once":
                daemon.wait_for_event(moment)
            daemon.terminate()
            daemon.wait_for_event("stopping")
            assert echoed(live)
        assert daemon.wait() == 0
        nothing_went_wrong(daemon)


@pytest.mark.parametrize("moment", ["at once", "handing_over", "handed_over"])
def test_a_restart_that_comes_during_an_upgrade_is_a_restart(moment: str, tmp_path: Path, echo: Echo) -> None:
    # R4, R5
    with Daemon(config(stream("web", echo("inet"))), tmp_path) as daemon, daemon.connect("web") as live:
        assert echoed(live)
        daemon.signal(signal.SIGUSR2)
        if moment != "at once":
            daemon.wait_for_event(moment)
        daemon.restart()
        assert echoed(live)
        nothing_went_wrong(daemon)


def test_a_stop_that_comes_during_the_next_start_drains(tmp_path: Path, echo: Echo) -> None:
    # R4, R6
    with Daemon(config(stream("web", echo("inet")), more='drain_timeout = "20s"'), tmp_path) as daemon:
        with daemon.connect("web") as live:
            assert echoed(live)
            daemon.signal(signal.SIGUSR2)
            daemon.wait_for_event("handed_over")
            daemon.wait_for(lambda: len(daemon.events("worker_started")) > 2, "a worker of the next life")
            daemon.terminate()
            daemon.wait_for_event("stopping")
            assert echoed(live)
        assert daemon.wait() == 0


def test_a_socket_for_each_session_is_no_reason_to_lose_some(tmp_path: Path, udp_echo: socket.socket) -> None:
    # R4: a packet of a parcel has sessions of one receiving socket, and with the default net.core.wmem_max some 500
    # packets fit
    count = 700
    first = free_range(count)
    text = config(dgram("game", address_of(udp_echo), f"127.0.0.1:{first}-{first + count - 1}"), workers=1)
    with Daemon(text, tmp_path) as daemon, contextlib.ExitStack() as stack:
        asking = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for port, client in enumerate(asking, first):
            client.settimeout(DEADLINE_S)
            client.connect(("127.0.0.1", port))
        ports = [answered(client, udp_echo, b"%d" % number) for number, client in enumerate(asking)]
        daemon.restart()
        assert daemon.wait_for_event("handed_over")["sessions"] == count
        assert [answered(client, udp_echo, b"%d" % number) for number, client in enumerate(asking)] == ports
        nothing_went_wrong(daemon)


@BY_RESTART
def test_descriptors_that_are_just_enough_are_enough(tmp_path: Path, echo: Echo, again: Again) -> None:
    # R4, R5, F2: a process has every listening socket once, also while it hands over
    count = 600
    first = free_range(count)
    listeners = (stream("web", echo("inet")), stream("many", echo("inet"), f"127.0.0.1:{first}-{first + count - 1}"))
    limit = ("prlimit", f"--nofile={count + 80}:{count + 80}")
    with Daemon(config(*listeners), tmp_path, prefix=limit) as daemon, daemon.connect("web") as client:
        assert echoed(client)
        for _ in range(2):
            again(daemon)
            assert echoed(client)
        with socket.create_connection(("127.0.0.1", first + count - 1), DEADLINE_S) as new:
            assert echoed(new)
        nothing_went_wrong(daemon)


@pytest.mark.parametrize("count", [1, 300], ids=lambda count: f"{count}-listening")
@pytest.mark.alone
def test_more_connections_than_may_be_in_flight_end_by_their_name(
    count: int, tmp_path: Path, echo: Echo, again: Again
) -> None:
    # R4: the kernel takes so many descriptors of one user (ETOOMANYREFS), but for one with these capabilities. Those of
    # other tests count too: alone.
    limit = 700 if count == 1 else 1000
    unprivileged = ["prlimit", f"--nofile={limit}:{limit}"]
    if os.geteuid() == 0:
        unprivileged[:0] = ["setpriv", "--bounding-set=-sys_resource,-sys_admin"]
    first = free_range(count)
    listeners = (stream("web", echo("inet")), stream("many", echo("inet"), f"127.0.0.1:{first}-{first + count - 1}"))
    with (
        Daemon(config(*listeners, workers=4), tmp_path, prefix=unprivileged) as daemon,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(daemon.connect("web")) for _ in range(700)]
        assert all(map(echoed, clients))
        again(daemon)
        handed_over = daemon.wait_for_event("handed_over")["connections"]
        assert handed_over >= 200
        live = 0
        for client in clients:
            with contextlib.suppress(OSError):
                live += echoed(client)
        assert live == handed_over
        with daemon.connect("web") as new:
            assert echoed(new)
        assert not [line for line in daemon.lines if line["event"] in ("internal_error", "systemd_unreachable")]


@BY_RESTART
@pytest.mark.parametrize("what", ["address", "admin", "descriptors", "directory"])
def test_a_file_that_cannot_be_done_is_refused(what: str, tmp_path: Path, echo: Echo, again: Again) -> None:
    # R1, R4: what a reload would refuse leaves in force what was, though the file itself is in order
    target = echo("inet")
    many = free_range(3000)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        used = address_of(busy)
        more = {
            "address": stream("new", target, used),
            "admin": f'[admin]\nlisten = ["{used}"]\n',
            "descriptors": stream("new", target, f"127.0.0.1:{many}-{many + 2999}"),
            "directory": stream("new", target, f"unix:{tmp_path}/nowhere/new.sock"),
        }
        stays, goes = stream("web", target), stream("old", target, f"unix:{tmp_path}/old.sock")
        limit = ("prlimit", "--nofile=1024:1024")
        with (
            Daemon(config(stays, goes), tmp_path, prefix=limit) as daemon,
            daemon.connect("web") as client,
            daemon.connect("old") as other,
        ):
            assert echoed(client)
            assert echoed(other)
            for text in (config(stays, goes, more[what]), config(stays, more[what])):
                daemon.configure(text)
                if what == "descriptors" and again is WAYS["upgrade"]:
                    daemon.signal(signal.SIGUSR2)
                    daemon.wait_for(
                        lambda: daemon.events("upgrade_refused") or daemon.events("reload_failed"), "a refusal"
                    )
                else:
                    again(daemon)
                    assert daemon.events("reload_failed")
                    daemon.wait_for_status(lambda text: "refused" in text)
                assert echoed(client)
                assert echoed(other)
                for name in ("web", "old"):
                    with daemon.connect(name) as new:
                        assert echoed(new)
            daemon.configure(config(stays))
            again(daemon)
            assert echoed(client)
            assert not (tmp_path / "old.sock").exists()


def test_a_passed_socket_that_is_gone_is_said(tmp_path: Path, echo: Echo) -> None:
    # R4: neither the file nor what was in force can be done
    with socket.create_server(("127.0.0.1", 0)) as made:
        daemon = Daemon(config(stream("web", echo("inet"), "systemd:web")), tmp_path, passing=[("web", made)])
        with daemon:
            daemon._passing = []
            with pytest.raises(AssertionError, match="systemd:web"):
                daemon.restart()
            assert daemon.wait() == 1


def test_an_address_may_take_the_place_of_another(tmp_path: Path, echo: Echo, again: Again) -> None:
    # R4: what is not wanted any more is not in the way
    target, port = echo("inet"), free_range(1)
    with Daemon(config(stream("web", target, f"127.0.0.1:{port}")), tmp_path) as daemon:
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
            assert echoed(client)
            daemon.configure(config(stream("web", target, f"0.0.0.0:{port}")))
            again(daemon)
            assert echoed(client)
            with socket.create_connection(("127.0.0.2", port), DEADLINE_S) as new:
                assert echoed(new)
        nothing_went_wrong(daemon)


@BY_RESTART
@pytest.mark.parametrize("shared", [True, False], ids=["taken", "dealt"])
def test_a_worker_that_dies_in_the_next_start_takes_along_its_own_alone(
    shared: bool, tmp_path: Path, echo: Echo, udp_echo: socket.socket, again: Again
) -> None:
    # R4, R7
    text = config(stream("web", echo("inet")), dgram("dns", address_of(udp_echo)))
    with Daemon(text, tmp_path) as daemon, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect("web")) for _ in range(300)]
        assert all(map(echoed, clients))
        if not shared:  # a session has to go to the worker with its socket: so control deals
            stack.enter_context(udp_client(daemon)).send(b"hello")
            assert udp_echo.recv(99) == b"hello"
        before = set(daemon.workers())

        def kill_one() -> None:
            new: list[int] = []
            while not new:
                with contextlib.suppress(OSError):  # between two processes
                    new = [pid for pid in daemon.workers() if pid not in before and _is_worker(pid)]
            os.kill(new[0], signal.SIGSTOP)
            daemon.wait_for_event("worker_started", 3)  # the other one
            os.kill(new[0], signal.SIGKILL)

        killing = threading.Thread(target=kill_one)
        killing.start()
        again(daemon)
        killing.join()
        assert len(daemon.workers()) == 2
        live = 0
        for client in clients:
            with contextlib.suppress(OSError):
                live += echoed(client)
        # Of what workers take themselves, one that is stopped has taken nothing yet, or not much.
        assert 100 <= live <= (300 if shared else 299)
        taken_over = daemon.wait_for_event("taken_over")  # behind what control says is lost
        assert taken_over["connections"] == live
        (lost,) = [line["count"] for line in daemon.events("not_taken_over")] or [0]
        assert lost - (300 - live) in ((0,) if shared else (0, 1))  # the session may be among them
        assert taken_over["sessions"] + lost + live == (300 if shared else 301)
        with daemon.connect("web") as new_client:
            assert echoed(new_client)
        assert daemon.stop() == 0


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_what_an_upgrade_asks(again: signal.Signals, tmp_path: Path, echo: Echo) -> None:
    # R6: and a second one ends what drains, as at any other time
    package = installed.environment().packages
    asked, script = tmp_path / "asked", tmp_path / "relayd.py"
    code = f"import sys\nsys.path[:1] = [{str(package)!r}]\nfrom relayd.cli.main import main\nsys.exit(main())\n"
    script.write_text(code)
    command = (str(installed.environment().python), str(script), "run")
    text = config(stream("web", echo("inet")), more='drain_timeout = "60s"')
    with Daemon(text, tmp_path, command=command) as daemon, daemon.connect("web") as client:
        assert echoed(client)
        os.mkfifo(asked)
        script.write_text(
            f"open({str(asked)!r}, 'w').write(str(__import__('os').getpid()))\nimport time\ntime.sleep(99)\n"
        )
        daemon.signal(signal.SIGUSR2)
        checking = int(asked.read_text())
        began = time.monotonic()
        daemon.terminate()
        daemon.wait_for_event("stopping")
        daemon.signal(again)
        assert daemon.wait() == 0
        assert time.monotonic() - began < DEADLINE_S
        assert not Path(f"/proc/{checking}").exists()
        assert daemon.events("upgrade_refused") == []


def _is_worker(pid: int) -> bool:
    return b"relayd.relay.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("module", ["relay/worker.py", "relay/stream/pump.py", "control/daemon.py"])
def test_an_upgrade_to_a_relayd_that_is_broken_is_refused(module: str, tmp_path: Path, echo: Echo) -> None:
    # R5: also where it is broken in what only runs
    folder = tmp_path / "installed"
    source = installed.environment().packages / "relayd"
    shutil.copytree(source, folder / "relayd", ignore=shutil.ignore_patterns("__pycache__"))
    script = tmp_path / "relayd.py"
    script.write_text(
        f"import sys\nsys.path[:1] = [{str(folder)!r}]\nfrom relayd.cli.main import main\nsys.exit(main())\n"
    )
    command = (str(installed.environment().python), str(script), "run")
    text = config(stream("web", echo("inet")))
    with Daemon(text, tmp_path, command=command) as daemon, daemon.connect("web") as client:
        assert echoed(client)
        path = folder / "relayd" / module
        code = path.read_text()
        path.write_text(f"{code}\ndef broken(:\n")
        daemon.signal(signal.SIGUSR2)
        assert "SyntaxError" in daemon.wait_for_event("upgrade_refused")["message"]
        assert echoed(client)
        path.write_text(code)
        WAYS["upgrade"](daemon)
        assert echoed(client)


def test_sessions_of_a_listener_that_is_gone_are_said_to_be(
    tmp_path: Path, echo: Echo, udp_echo: socket.socket
) -> None:
    # R4: and no datagrams are served at all any more
    target = echo("inet")
    with Daemon(config(stream("web", target), dgram("dns", address_of(udp_echo))), tmp_path) as daemon:
        with udp_client(daemon) as asking:
            answered(asking, udp_echo, b"question")
            daemon.configure(config(stream("web", target)))
            daemon.restart()
        line = daemon.wait_for_event("not_taken_over")
        assert (line["listener"], line["count"]) == ("dns", 1)
        assert "nobody listens" in line["message"]


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_said_to_be_lost_is_not_said_to_be_taken_over(
    alone: bool, tmp_path: Path, echo: Echo, udp_echo: socket.socket
) -> None:
    # R4: datagrams are served still, by another listener
    target, other = echo("inet"), dgram("other", address_of(udp_echo))
    with Daemon(config(stream("web", target), dgram("dns", address_of(udp_echo)), other), tmp_path) as daemon:
        with udp_client(daemon) as asking, contextlib.ExitStack() as stack:
            answered(asking, udp_echo, b"question")
            if not alone:
                live = stack.enter_context(daemon.connect("web"))
                assert echoed(live)
            daemon.configure(config(stream("web", target), other))
            daemon.restart()
            daemon.wait_for_event("started", 2)  # the last line of control's, and of the worker this one
            daemon.wait_for_event("not_taken_over")
        assert [(line["listener"], line["count"]) for line in daemon.events("not_taken_over")] == [("dns", 1)]
        taken_over = [(line["connections"], line["sessions"]) for line in daemon.events("taken_over")]
        assert taken_over == ([] if alone else [(1, 0)])


def test_the_store_has_the_sockets_all_through_a_restart(tmp_path: Path, echo: Echo) -> None:
    # R4: whenever the next process dies, nobody is refused
    with Daemon(config(stream("web", echo("inet")), stream("own", echo("inet"))), tmp_path) as daemon:
        before = len(daemon.notifications)
        daemon.restart()
        removed = [told["FDNAME"] for told in daemon.notifications[before:] if "FDSTOREREMOVE" in told]
        assert not [name for name in removed if name.startswith("relayd-socket-")]
        nothing_went_wrong(daemon)
