"""Every way in which a connection or a session can end, and in which a datagram can be lost, once: log, counters and
status use these names and no others.

`code` is HAProxy's pair of letters (its configuration manual, section 8.5, "Session state at disconnection") where
the meaning is the same. The first letter says who or what ended it: `C` client, `S` target ("server"), `R` a
resource ran out here, `I` a bug here, `K` killed by an operator's action, lower case a timeout on that side. The second
says when: `C` while connecting, `D` while data moved, `-` after a proper end. Where HAProxy has no such state
the first letter is lower case and not one of HAProxy's (`i`, `h`, `t`), so that no letter has two meanings.
"""

import enum


class Side(enum.Enum):
    """Who caused the end."""

    CLIENT = "client"
    TARGET = "target"
    RELAY = "relay"


class Outcome(enum.Enum):
    """How a connection or a session ended. `value` is the name used everywhere outside this program."""

    value: str
    code: str
    side: Side
    meaning: str

    #: Members are singletons, so identity will do; Enum's own hash goes through Python, and counters ask twice a
    #: connection.
    __hash__ = object.__hash__

    def __new__(cls, value: str, code: str, side: Side, meaning: str) -> "Outcome":
        member = object.__new__(cls)
        member._value_ = value
        member.code = code
        member.side = side
        member.meaning = meaning
        return member

    #: `side` of a normal end is whoever sent the first FIN; this default is replaced in the log line.
    NORMAL = ("normal", "--", Side.CLIENT, "both sides finished; every byte was delivered")
    CLIENT_RESET = ("client_reset", "CD", Side.CLIENT, "the client reset the connection")
    CLIENT_ABORTED_CONNECTING = (
        "client_aborted_connecting",
        "CC",
        Side.CLIENT,
        "the client went away before the target had answered",
    )
    CLIENT_TIMEOUT = (
        "client_timeout",
        "cD",
        Side.CLIENT,
        "the client stopped answering (keepalive or tcp_user_timeout)",
    )
    TARGET_RESET = ("target_reset", "SD", Side.TARGET, "the target reset the connection")
    TARGET_TIMEOUT = (
        "target_timeout",
        "sD",
        Side.TARGET,
        "the target stopped answering (keepalive or tcp_user_timeout)",
    )
    TARGET_REFUSED = ("target_refused", "SC", Side.TARGET, "nobody listens at the target")
    TARGET_UNREACHABLE = ("target_unreachable", "SC", Side.TARGET, "no way to the target")
    CONNECT_TIMEOUT = (
        "connect_timeout",
        "sC",
        Side.TARGET,
        "the target did not answer within connect_timeout",
    )
    NO_TARGET = (
        "no_target",
        "SC",
        Side.RELAY,
        "there is no target: none has an address, or all are down, drained or full",
    )
    NO_SOURCE = ("no_source", "RC", Side.RELAY, "this machine does not have the address of `source`")
    IDLE_TIMEOUT = ("idle_timeout", "iD", Side.RELAY, "no byte moved for idle_timeout")
    SESSION_TIMEOUT = ("session_timeout", "iD", Side.RELAY, "no datagram in either direction for session_timeout")
    MAX_RESPONSES = ("max_responses", "--", Side.RELAY, "as many datagrams came back as max_responses allows")
    EVICTED = ("evicted", "RD", Side.RELAY, "made room for a new session: it was the one unused for longest")
    HALF_CLOSE_TIMEOUT = (
        "half_close_timeout",
        "hD",
        Side.RELAY,
        "one side had finished and no byte moved for half_close_timeout",
    )
    MAX_LIFETIME = ("max_lifetime", "tD", Side.RELAY, "open for max_lifetime")
    RESOURCE_EXHAUSTED = (
        "resource_exhausted",
        "RC",
        Side.RELAY,
        "out of file descriptors, memory or local ports",
    )
    SHUTDOWN = (
        "shutdown",
        "KD",
        Side.RELAY,
        "relayd stopped, and drain_timeout was over or the session had fallen silent",
    )
    REMOVED = (
        "removed",
        "KD",
        Side.RELAY,
        "a reload changed or removed its listener or target, and on_change said so",
    )
    KILLED = ("killed", "KD", Side.RELAY, "an operator has ended it, by relayd kill")
    NOT_TAKEN_OVER = (
        "not_taken_over",
        "KD",
        Side.RELAY,
        "a restart had no room for it, or the version after the restart does not know how the one before wrote it down",
    )
    INTERNAL_ERROR = ("internal_error", "ID", Side.RELAY, "a bug in relayd; the log has the traceback")


def outcome_named(value: str) -> Outcome:
    """The member of this name. Raises ValueError when there is none."""
    for outcome in Outcome:
        if outcome.value == value:
            return outcome
    raise ValueError(f"no outcome {value!r}")


class Drop(enum.Enum):
    """Why a datagram was not passed on (D4). `value` is the name used everywhere outside this program."""

    value: str
    meaning: str

    __hash__ = object.__hash__  # as for Outcome

    def __new__(cls, value: str, meaning: str) -> "Drop":
        member = object.__new__(cls)
        member._value_ = value
        member.meaning = meaning
        return member

    NO_TARGET = ("no_target", "there is no target: none has an address, or all are down, drained or full")
    TARGET_FAILED = ("target_failed", "no target can be reached")
    TARGET_FULL = ("target_full", "the target does not read as fast as datagrams come")
    CLIENT_FULL = (
        "client_full",
        "the client does not read as fast as datagrams come, or this machine does not send as fast",
    )
    RELAY_FULL = ("relay_full", "came faster than relayd reads; the kernel counts these")
    CLIENT_FAILED = ("client_failed", "the system does not send to the client's address")
    TOO_LARGE = ("too_large", "larger than the other side, or relayd, can take")
    NO_REPLY_PATH = ("no_reply_path", 'an answer to a Unix client without a name, or with session = "datagram"')
    OVERLOADED = ("overloaded", "more new clients came at once than sessions can begin")
    RESOURCE_EXHAUSTED = ("resource_exhausted", "out of file descriptors, memory or local ports")
    DRAINING = ("draining", "relayd is stopping and begins no new sessions")
    INTERNAL_ERROR = ("internal_error", "a bug in relayd; the log has the traceback")
