"""Every kind of line that relayd logs, once: a name, a level, and a MESSAGE_ID that never changes.

The name is what `event` says in JSON and EVENT in the journal; `journalctl MESSAGE_ID=...` finds all lines of one kind.
A new kind gets an id of its own from `systemd-id128 new`. An id is never given to another kind. What stands above each
kind as `#:` is what docs/reference.md says of it.
"""

import enum


class Level(enum.Enum):
    """How much a line matters, by the names of `[log] level`. `priority` is syslog's number: less is graver."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def priority(self) -> int:
        """For PRIORITY= in the journal (syslog(3))."""
        return _PRIORITY[self]


_PRIORITY = {Level.DEBUG: 7, Level.INFO: 6, Level.WARNING: 4, Level.ERROR: 3}


class Event(enum.Enum):
    """One kind of line. `limited` kinds can come in storms; the logger writes a burst of each and counts the rest.

    A kind that is not limited comes as often as the configuration or an operator makes it, and no oftener.
    """

    value: str
    level: Level
    message_id: str
    limited: bool

    def __new__(cls, value: str, level: Level, message_id: str, limited: bool = True) -> "Event":  # noqa: FBT001, FBT002  # a column of the table below
        member = object.__new__(cls)
        member._value_ = value
        member.level = level
        member.message_id = message_id
        member.limited = limited
        return member

    # The life of the daemon.
    #: Every listener is bound and every worker accepts: the moment of READY=1.
    STARTED = ("started", Level.INFO, "c0b2389f915e5c984ec8c4069252fcfc", False)
    #: A listening socket is open, at the start or by a reload; one line for each bind, with its address.
    LISTENING = ("listening", Level.INFO, "2b0ac372f799c04ac168b76eeeeb4de2", False)
    #: A stop begins, and how long open connections have.
    STOPPING = ("stopping", Level.INFO, "6f7e3f0291b0c9095449c224988c041d", False)
    #: The end of a stop.
    STOPPED = ("stopped", Level.INFO, "17fd95a95ee26e7ddcc25580b59be7d0", False)
    #: A start fails: an address cannot be listened on. One line for each.
    BIND_FAILED = ("bind_failed", Level.ERROR, "4cde0133dc45e002fb60e12c2b59f609", False)
    #: What `relayd check` warns of, at a start and at a reload.
    CONFIGURATION_WARNING = ("configuration_warning", Level.WARNING, "a322f08f5c1e4f0b97b33d388fe7192f", False)
    #: A start fails for anything else: too few file descriptors, a worker that does not come up.
    START_FAILED = ("start_failed", Level.ERROR, "7bef936ceeb44718bf74c39dcc81f498", False)
    #: A reload is done, or confirmed.
    RELOADED = ("reloaded", Level.INFO, "3e2410cc77bd472fa2c74520181eea9b", False)
    #: One difference that a reload has made, as `relayd plan` prints it.
    RELOAD_CHANGE = ("reload_change", Level.INFO, "45ad28e51af34437988538d5642755b4", False)
    #: A worker does not do yet what a reload says: it will, or is replaced.
    RELOAD_LATE = ("reload_late", Level.WARNING, "6cca49635be342efa25b51aa664c5751", False)
    #: A reload was refused, and nothing has changed. One line for each error.
    RELOAD_FAILED = ("reload_failed", Level.ERROR, "5ee66d84769e4dafb0bc73faa6d743a5", False)
    #: A restart (SIGUSR1) or an upgrade in place (SIGUSR2) begins.
    HANDING_OVER = ("handing_over", Level.INFO, "a10b7370f661468aa708cae0a5c667a2", False)
    #: All workers have handed over, and how much.
    HANDED_OVER = ("handed_over", Level.INFO, "6d4ceab7eea1499398ffa1c6982a992a", False)
    #: What was handed over is relayed again, and how much that is.
    TAKEN_OVER = ("taken_over", Level.INFO, "c5319ae3e31b44de83c244e15b4483d9", False)
    #: SIGUSR1 or SIGUSR2 was not followed, and why; everything goes on as before.
    UPGRADE_REFUSED = ("upgrade_refused", Level.ERROR, "5e8d59e7ddaa4d4d8bc99363321e7036", False)
    #: Connections or sessions that were handed over and have ended, and why.
    NOT_TAKEN_OVER = ("not_taken_over", Level.WARNING, "0c4dcaabd62243a58f555f10fca24e58")
    #: An operator has lines of another level logged: which, and who. Written whatever the level is.
    LOG_LEVEL = ("log_level", Level.INFO, "cefe365085854dceb294f14a14b865f9", False)
    #: systemd could not be told something.
    SYSTEMD_UNREACHABLE = ("systemd_unreachable", Level.WARNING, "ecf9986ec6cb4192541eeb27792ada45")
    #: There is no admin API, and why: no reload by command and no status. Relaying goes on.
    ADMIN_UNAVAILABLE = ("admin_unavailable", Level.WARNING, "b47d407f2cbb46b1a1ef379e33495f56", False)

    # Workers, as the control process sees them.
    #: A worker accepts.
    WORKER_STARTED = ("worker_started", Level.INFO, "acf28e39e921db40f43f26969bbb7b7a", False)
    #: A worker has ended, or could not be started; another one takes its place.
    WORKER_EXITED = ("worker_exited", Level.WARNING, "1b0b4e5d7ec75a2ae1bd7ddbfbf0e1f5")
    #: A worker has sent no report for too long, and is killed.
    WORKER_HUNG = ("worker_hung", Level.ERROR, "4d6cef150c693c83c789a3e8489bd95a")
    #: A worker keeps ending, and is started again later.
    WORKER_BACKOFF = ("worker_backoff", Level.ERROR, "cb7fe255137311a7842f8a6b3474bdce")

    # A worker, about the process that started it.
    #: The control process is gone: the worker accepts no more, and lets connections finish.
    CONTROL_LOST = ("control_lost", Level.WARNING, "21fc42fd2de0431caf28875b83ea817b")

    # Relaying.
    #: A listener pauses, out of descriptors or memory or at the limit; who comes waits in the backlog.
    ACCEPT_PAUSED = ("accept_paused", Level.WARNING, "c3c72ca12e8b21696fc5d4e54c934ce1")
    #: A host name of a target has another answer than before.
    TARGET_RESOLVED = ("target_resolved", Level.INFO, "d7cf105c00adfe65d4b4955cd0ce8af5")
    #: A host name of a target does not resolve, and what is dialled instead.
    TARGET_UNRESOLVED = ("target_unresolved", Level.WARNING, "c0875c1f626f5e92388fe8c8ec62873b")
    #: An operator has drained, disabled or enabled a target, or given it another weight (`relayd target`).
    TARGET_ORDERED = ("target_ordered", Level.INFO, "c8cb8a041cd3411c9d5f9fae4ecf5dec", False)
    #: What an operator has ordered of a target holds no more: a reload has taken it out, or relayd was restarted.
    TARGET_ORDER_LOST = ("target_order_lost", Level.WARNING, "3fe070bcbe6643278165a7213023c134", False)
    #: A client has met a target that fails: its worker passes it over for a while.
    TARGET_SUSPECT = ("target_suspect", Level.WARNING, "33551ae050684c7b83669b32d571a47f")
    #: A client has met a target that works, and was passed over.
    TARGET_TRUSTED = ("target_trusted", Level.INFO, "4cd0863ed1264b2cbb5823328e2b6e52")
    #: A target that was down is in service again: checks find it up.
    TARGET_UP = ("target_up", Level.INFO, "c0d22a5132fc409aaadb3963c28da99c", False)
    #: Health checks, or failures that clients have met, have taken a target out of service, and why.
    TARGET_DOWN = ("target_down", Level.WARNING, "a9271f0e7e414b25989e68ef5c20fc3f", False)
    #: A target could not be checked, for a reason of this machine: it stays as it is, and is asked again.
    CHECK_IMPEDED = ("check_impeded", Level.WARNING, "b8741347c4d74e03b83080d2c7af0e78")
    #: A check came later than it should by more than its interval: more are due than can be under way.
    CHECKS_LATE = ("checks_late", Level.WARNING, "e6b3763d820f4b97b4fd946ccd22757c")
    #: Datagrams were not passed on: how many, and by which reason.
    DATAGRAMS_DROPPED = ("datagrams_dropped", Level.WARNING, "ef47ae9fabb14a8ab504d85261ab08ed")
    #: An access line: a connection has ended.
    CONNECTION = ("connection", Level.INFO, "1edb5097ab150bab70637616bd4abbc4", False)
    #: An access line: a session of datagrams has ended.
    SESSION = ("session", Level.INFO, "98bf7f86f3844c899355bb2e63b2c036", False)
    #: A connection has reached its target. By choice, as the next three: `start` and `progress` of a listener's log.
    CONNECTION_STARTED = ("connection_started", Level.INFO, "4189f9ddcf334a5abcd6d70ff34e943b", False)
    #: A connection lives, and for how long and how much has moved.
    CONNECTION_PROGRESS = ("connection_progress", Level.INFO, "77347cc200634ed18148a54fb15634e2", False)
    #: A session of datagrams has begun.
    SESSION_STARTED = ("session_started", Level.INFO, "4682428fd58e40bc84c965867f6c3afe", False)
    #: A session of datagrams lives, and for how long and how much has moved.
    SESSION_PROGRESS = ("session_progress", Level.INFO, "36608038ea5845b0aa7d9eb2584d4646", False)
    #: A bug in relayd, with its traceback; it ends at most the connection that it met.
    INTERNAL_ERROR = ("internal_error", Level.ERROR, "0fa65bee88cc6d98c7c862edeef45acb")

    # The log about itself.
    #: So many lines were not written, because nobody took them.
    LINES_LOST = ("lines_lost", Level.WARNING, "6c076b829c9eac8a566eec1bd48f9ad1", False)
    #: So many lines of one kind were left out, because they came too fast.
    LINES_LEFT_OUT = ("lines_left_out", Level.WARNING, "83b00874647e1dbbddb7b16362b99430", False)
