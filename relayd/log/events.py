"""Every kind of line that relayd logs, once: a name, a level, and a MESSAGE_ID that never changes.

The name is what `event` says in JSON and EVENT in the journal; `journalctl MESSAGE_ID=...` finds all lines of one kind.
A new kind gets an id of its own from `systemd-id128 new`. An id is never given to another kind.
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
    STARTED = ("started", Level.INFO, "c0b2389f915e5c984ec8c4069252fcfc", False)
    LISTENING = ("listening", Level.INFO, "2b0ac372f799c04ac168b76eeeeb4de2", False)
    STOPPING = ("stopping", Level.INFO, "6f7e3f0291b0c9095449c224988c041d", False)
    STOPPED = ("stopped", Level.INFO, "17fd95a95ee26e7ddcc25580b59be7d0", False)
    BIND_FAILED = ("bind_failed", Level.ERROR, "4cde0133dc45e002fb60e12c2b59f609", False)
    CONFIGURATION_WARNING = ("configuration_warning", Level.WARNING, "a322f08f5c1e4f0b97b33d388fe7192f", False)
    START_FAILED = ("start_failed", Level.ERROR, "7bef936ceeb44718bf74c39dcc81f498", False)
    RELOADED = ("reloaded", Level.INFO, "3e2410cc77bd472fa2c74520181eea9b", False)
    RELOAD_CHANGE = ("reload_change", Level.INFO, "45ad28e51af34437988538d5642755b4", False)
    RELOAD_LATE = ("reload_late", Level.WARNING, "6cca49635be342efa25b51aa664c5751", False)
    RELOAD_FAILED = ("reload_failed", Level.ERROR, "5ee66d84769e4dafb0bc73faa6d743a5", False)
    HANDING_OVER = ("handing_over", Level.INFO, "a10b7370f661468aa708cae0a5c667a2", False)
    HANDED_OVER = ("handed_over", Level.INFO, "6d4ceab7eea1499398ffa1c6982a992a", False)
    TAKEN_OVER = ("taken_over", Level.INFO, "c5319ae3e31b44de83c244e15b4483d9", False)
    UPGRADE_REFUSED = ("upgrade_refused", Level.ERROR, "5e8d59e7ddaa4d4d8bc99363321e7036", False)
    NOT_TAKEN_OVER = ("not_taken_over", Level.WARNING, "0c4dcaabd62243a58f555f10fca24e58")
    SYSTEMD_UNREACHABLE = ("systemd_unreachable", Level.WARNING, "ecf9986ec6cb4192541eeb27792ada45")
    ADMIN_UNAVAILABLE = ("admin_unavailable", Level.WARNING, "b47d407f2cbb46b1a1ef379e33495f56", False)

    # Workers, as the control process sees them.
    WORKER_STARTED = ("worker_started", Level.INFO, "acf28e39e921db40f43f26969bbb7b7a", False)
    WORKER_EXITED = ("worker_exited", Level.WARNING, "1b0b4e5d7ec75a2ae1bd7ddbfbf0e1f5")
    WORKER_HUNG = ("worker_hung", Level.ERROR, "4d6cef150c693c83c789a3e8489bd95a")
    WORKER_BACKOFF = ("worker_backoff", Level.ERROR, "cb7fe255137311a7842f8a6b3474bdce")

    # A worker, about the process that started it.
    CONTROL_LOST = ("control_lost", Level.WARNING, "21fc42fd2de0431caf28875b83ea817b")

    # Relaying.
    ACCEPT_PAUSED = ("accept_paused", Level.WARNING, "c3c72ca12e8b21696fc5d4e54c934ce1")
    TARGET_RESOLVED = ("target_resolved", Level.INFO, "d7cf105c00adfe65d4b4955cd0ce8af5")
    TARGET_UNRESOLVED = ("target_unresolved", Level.WARNING, "c0875c1f626f5e92388fe8c8ec62873b")
    DATAGRAMS_DROPPED = ("datagrams_dropped", Level.WARNING, "ef47ae9fabb14a8ab504d85261ab08ed")
    CONNECTION = ("connection", Level.INFO, "1edb5097ab150bab70637616bd4abbc4", False)
    SESSION = ("session", Level.INFO, "98bf7f86f3844c899355bb2e63b2c036", False)
    INTERNAL_ERROR = ("internal_error", Level.ERROR, "0fa65bee88cc6d98c7c862edeef45acb")

    # The log about itself.
    LINES_LOST = ("lines_lost", Level.WARNING, "6c076b829c9eac8a566eec1bd48f9ad1", False)
    LINES_LEFT_OUT = ("lines_left_out", Level.WARNING, "83b00874647e1dbbddb7b16362b99430", False)
