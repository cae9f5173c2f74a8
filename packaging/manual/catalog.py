"""The journal's catalog: what `journalctl -x` adds to a line of relayd (systemd's "Journal Message Catalogs")."""

from pathlib import Path

from manual import comments
from relayd.log import events
from relayd.log.events import Event

_HEAD = """\
# What journalctl -x adds to the lines of relayd. Made of the code by `packaging/dev manual`.
"""
#: What an operator can do about it. Every warning and error has some.
ADVICE = {
    Event.BIND_FAILED: (
        "`ss -lntupx` says who has an address. A port below 1024 takes CAP_NET_BIND_SERVICE, which the shipped "
        "unit gives. For an address that comes later than relayd does there is `freebind = true`."
    ),
    Event.CONFIGURATION_WARNING: "`relayd check` prints it with its line.",
    Event.START_FAILED: (
        "Too few descriptors: raise LimitNOFILE= of the unit, or bind fewer addresses; `relayd check` prints what "
        "is needed. A worker that does not come up: its last words are in the lines before."
    ),
    Event.RELOAD_LATE: (
        "Lines of the kinds worker_hung and worker_exited around this one say what became of the worker."
    ),
    Event.RELOAD_FAILED: (
        "What was in force goes on, and no connection has noticed. Correct what the line names, see that `relayd "
        "check` is content, and reload again."
    ),
    Event.UPGRADE_REFUSED: "Correct what the line names, and send the signal again.",
    Event.NOT_TAKEN_OVER: (
        "The clients have to connect again. Where there was no room, LimitNOFILE= of the unit bounds what can be "
        "handed over; where the versions did not understand each other, it will not happen again at the next "
        "restart."
    ),
    Event.SYSTEMD_UNREACHABLE: (
        "Relaying goes on. If it lasts, systemd does not know the state of the service: see `systemctl status relayd`."
    ),
    Event.ADMIN_UNAVAILABLE: (
        "`relayd check` says whether the address of [admin] is the reason; a library that "
        "cannot be imported means that the package is not complete: install it again."
    ),
    Event.WORKER_EXITED: (
        "Connections of this worker have ended; others go on, and new ones wait in the backlog. Killed by signal "
        "9, it was perhaps the kernel for want of memory: `journalctl -k`. Exit code 70 is a bug in relayd, and "
        "its traceback is in the line before."
    ),
    Event.WORKER_HUNG: (
        "Its connections have ended with it. A machine that stands still for so long, a suspended one say, looks "
        "the same. Otherwise it is a bug in relayd: please report it with the lines around this one."
    ),
    Event.WORKER_BACKOFF: (
        "Something ends it again and again: the lines of the kind worker_exited say what. Others relay meanwhile, "
        "if there are any. Where the line names another version, an upgrade has put its files in place and not "
        "restarted relayd: `systemctl restart relayd`."
    ),
    Event.TARGET_ORDER_LOST: (
        "An order holds as long as its target is in the file, and no longer than to the next restart. Give it again by "
        "`relayd target` where it is still wanted; what is to last belongs in the file: a weight, or no such target."
    ),
    Event.TARGET_SUSPECT: (
        "Clients go to the other targets meanwhile, and one at a time finds out whether it works again. Where it is "
        "the only target, or too many are suspects (max_ejected), it gets clients all the same. `relayd target list` "
        "says what all targets are."
    ),
    Event.CONTROL_LOST: (
        "systemd starts relayd again at once (Restart=on-failure) with the same listening sockets. Why the "
        "control process ended is in the lines before, or in `journalctl -k`."
    ),
    Event.ACCEPT_PAUSED: (
        "Established connections go on. Raise LimitNOFILE= of the unit, give fewer listeners or shorter timeouts; "
        "`relayd check` prints the budget of descriptors."
    ),
    Event.TARGET_UNRESOLVED: (
        "The reason is what each name server has answered: relayd asks those of /etc/resolv.conf, after /etc/hosts, "
        "as `dig +search NAME` does. Addresses that the name had before are used as long as there is no other answer; "
        "`relayd status` shows how old it is."
    ),
    Event.TARGET_DOWN: (
        "New clients go to the other targets of the pool; where all are down, fail_open decides. Ask the target as the "
        "check does, from this machine: the line says what came of it. docs/how-to/health-checks.md has the ways."
    ),
    Event.CHECK_IMPEDED: (
        "Nothing was found out about the target. Descriptors or memory of the control process have run out, or the "
        "address of `source` is not on this machine: the line says which. Further targets with the same trouble have "
        "no line of their own."
    ),
    Event.CHECKS_LATE: (
        "At most 512 checks are under way at once, and 16 commands. A silent target keeps its place for the whole "
        "`timeout`: a shorter one, or a longer `unhealthy_interval`, makes room. Pools take turns, and some places are "
        "kept from targets that fail. Where few targets are silent, the control process does not get the processor in "
        "time."
    ),
    Event.DATAGRAMS_DROPPED: (
        "The reasons are in docs/reference.md (/usr/share/doc/relayd). For target_failed look at the target; for a "
        "full queue raise net.core.rmem_max, or spread clients over more workers."
    ),
    Event.INTERNAL_ERROR: "Please report it with the traceback.",
    Event.LINES_LOST: (
        "Whoever reads the log is too slow, or not there: look at journald, or at what standard error leads to. "
        "Relaying has not waited for it."
    ),
    Event.LINES_LEFT_OUT: (
        "Their number is in the line. The kind named there has come oftener than ten times in ten seconds."
    ),
}


def page() -> str:
    """The text, ending with a newline."""
    meanings = comments.of_class(Path(events.__file__), "Event")
    return _HEAD + "".join(_entry(each, meanings[each.name]) for each in Event)


def _entry(event: Event, meaning: str) -> str:
    body = "\n\n".join([meaning, *([ADVICE[event]] if event in ADVICE else [])])
    return (
        f"\n-- {event.message_id}\n"
        f"Subject: relayd: {event.value.replace('_', ' ')}\n"
        f"Defined-By: relayd\n"
        f"Documentation: man:relayd(8)\n\n"
        f"{body}\n"
    )
