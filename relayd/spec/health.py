"""How the targets of a listener, or of a pool that listeners share, are looked after (T2)."""

import enum

from relayd.values import dataclass


class CheckKind(enum.Enum):
    """How a target is asked whether it is up."""

    TCP = "tcp"
    UDP = "udp"
    HTTP = "http"
    EXEC = "exec"


@dataclass(frozen=True, slots=True)
class Check:
    """A health check: `fall` failures in a row take a target out of service, `rise` successes bring it back.

    It is asked every `interval_s`, every `unhealthy_interval_s` while it is down; an answer has `timeout_s`. `port`
    None is the target's own. What is sent and expected are bytes, one character for each (latin-1), so that JSON has
    them.

    TCP and UDP send `send`, and the answer has `expect` in it, or matches `expect_pattern`, a regular expression; with
    neither, TCP asks for a connection and UDP for any answer. TCP and UDP stand for streams and datagrams: to a Unix
    target, too. HTTP sends `method` and `path` with the Host `host` (None: the target), and the status is in one of the
    ranges of `status`, ends included. EXEC runs `command`, which exits with 0.
    """

    kind: CheckKind
    interval_s: float
    unhealthy_interval_s: float
    timeout_s: float
    rise: int
    fall: int
    port: int | None = None
    send: str = ""
    expect: str | None = None
    expect_pattern: str | None = None
    method: str = "GET"
    path: str = "/"
    host: str | None = None
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """What is done about targets that fail.

    `check` None: nobody asks, and only clients find out. `fail_open`: where checks say that all are down, clients are
    sent to them all the same. Of the targets that are up by their checks, at most `max_ejected` percent are passed over
    because clients have found them failing. A target that comes back gets its whole share after `slow_start_s`.
    """

    check: Check | None = None
    fail_open: bool = True
    max_ejected: int = 50
    slow_start_s: float = 0.0


#: Nobody asks.
UNCHECKED = Health()


class Ordered(enum.Enum):
    """What an operator has ordered for a target: whether it gets new clients, and keeps those that it has."""

    ENABLED = "enabled"
    #: No new clients; those that it has stay.
    DRAINED = "drained"
    #: No new clients, and those that it has go, by `on_change`.
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class TargetState:
    """Of the target `target` (`spec.Target.origin`) of the pool `pool` (`spec.Listener.pool_name`): whether it is up by
    its checks, and what an operator has ordered. `weight` None is that of the file.
    """

    pool: str
    target: str
    up: bool = True
    ordered: Ordered = Ordered.ENABLED
    weight: int | None = None
