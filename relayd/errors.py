"""errno values by what a relay has to do about them, and the one exception of the project's own.

A call site asks `error.errno in OUT_OF_RESOURCES`, never for a list of its own. A group answers for the calls that its
comment names; EPERM, say, means one thing from accept(2) and another from splice(2).
"""

import errno
import os

#: Try again when the selector says so. Python retries EINTR itself (PEP 475); it is here because a filter
#: such as seccomp or a tracer may still return it from calls that PEP 475 does not cover.
TRANSIENT = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR})

#: The other end is gone. accept(2) and tcp(7): ETIMEDOUT is keepalive or TCP_USER_TIMEOUT giving up.
RESET = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN, errno.ESHUTDOWN})

#: accept(2) passes on errors that belong to the connection, not to the listening socket: "reliable operation
#: should treat them like EAGAIN". EPERM is a firewall rule that says no.
ACCEPT_RETRY = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
        errno.EOPNOTSUPP,
        errno.ETIMEDOUT,
    }
)

#: This process or this machine has run out of something; trying again at once would spin. EADDRNOTAVAIL is connect(2)
#: without a local port left (from bind(2) it means another thing: `net.dialing.NoSource`). ETOOMANYREFS: this user has
#: more descriptors on their way through Unix sockets than RLIMIT_NOFILE allows (unix(7)).
OUT_OF_RESOURCES = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EADDRNOTAVAIL,
        errno.ETOOMANYREFS,
    }
)

#: splice(2) does not work between these two files, or a system call filter forbids it (EPERM); copying works.
SPLICE_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})

#: connect(2) was answered: nobody takes connections there. A Unix path without a socket is ENOENT, one whose
#: listener is gone ECONNREFUSED; ECONNRESET is a listener that closed while its backlog held us.
REFUSED = frozenset({errno.ECONNREFUSED, errno.ENOENT, errno.ECONNRESET})


class RelaydError(Exception):
    """Something the operator has to act on. `str(error)` is complete: what, where, and what to do."""


def name(number: int) -> str:
    """`ECONNRESET` for 104; an empty string for 0; the number itself where this system has no name for it."""
    return errno.errorcode.get(number, str(number)) if number else ""


def spoken(number: int) -> str:
    """`connection refused` for 111, as a reason in a sentence. ETIMEDOUT is named after what it is of a connect."""
    return "connect timeout" if number == errno.ETIMEDOUT else os.strerror(number).lower()
