"""What the manual says of relayd that no module of it has in words. Backticks are code, in Markdown and in roff."""

from relayd.spec import ADMIN_SOCKET

#: How an address is written; where it may stand: in `bind`, in `targets`; what it is.
ADDRESSES = (
    ("10.0.0.1:80", "yes", "yes", "IPv4. `0.0.0.0` is every IPv4 address, to bind only"),
    (
        "[2001:db8::1]:80",
        "yes",
        "yes",
        "IPv6, in brackets. `[::]` is every address, of IPv4 too unless `ipv6_only` is set",
    ),
    ("[fe80::1%eth0]:80", "yes", "yes", "link-local IPv6, with its interface (name or index)"),
    (
        ":80",
        "yes",
        "",
        'every address: `[::]:80`; `0.0.0.0:80` with `family = "inet"`, or where the machine has no IPv6',
    ),
    (
        "0.0.0.0:27000-27099",
        "yes",
        "yes",
        "a range of ports, on any inet or inet6 host. In targets: the port at the same position; the range is as long "
        "as each bind",
    ),
    ("10.0.0.1:+10000", "", "yes", "the port of the bind, and 10000 more"),
    ("10.0.0.1", "", "yes", "the port of the bind"),
    (
        "app.example.com:80",
        "yes",
        "yes",
        "a host name. In a bind it is resolved once, when the file is loaded, and every address it has is bound; in "
        "targets it is resolved while relayd runs, and every address it has is a target",
    ),
    (
        "srv:_http._tcp.example.com",
        "",
        "yes",
        "a service: the hosts and ports of its SRV records, every address of each a target. Those of the lowest "
        "priority get the clients, by their weights, and the others are backups",
    ),
    ("unix:/run/app.sock", "yes", "yes", "a Unix socket by its absolute path, at most 107 bytes"),
    ("unix:@name", "yes", "yes", "a Unix socket in the abstract namespace: no file, no permissions"),
    (
        "systemd:NAME",
        "yes",
        "",
        "every socket that systemd passes under `FileDescriptorName=NAME` and that is of the listener's type",
    ),
)
ADDRESSES_NOTE = (
    "Port 0 in a bind lets the kernel choose; the log says which it was. An IPv4 address written as IPv6 "
    "(`[::ffff:10.0.0.1]:80`) is that IPv4 address."
)

DURATIONS = (
    'A duration is a string with a unit: `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"1d"`, or several from large to small: '
    '`"1h30m"`. A bare number is an error.'
)

#: What the control process does at a signal.
SIGNALS = (
    (
        "SIGTERM, SIGINT",
        "stop: accept no more, and let connections go on for `drain_timeout`; a second one ends them now",
    ),
    ("SIGHUP", "reload. `relayd reload` waits for the verdict, a signal does not"),
    (
        "SIGUSR2",
        "upgrade in place: become the relayd that is installed now, under the same process id, with every connection "
        "and session",
    ),
    (
        "SIGUSR1",
        "hand everything over to the next process, and end: what the unit sends for `systemctl restart`. Not to be "
        "sent by hand. Ignored where no systemd would keep what is handed over",
    ),
)

ENVIRONMENT = (
    ("RELAYD_ADMIN", "where commands find the daemon, unless `--admin` says so"),
    ("RELAYD_ADMIN_TOKEN_FILE", "where the token is that the daemon wants by TCP, unless `--token-file` says so"),
    ("NO_COLOR", "`top` uses no colours"),
    ("TERM", "`dumb`: nothing is redrawn, and there is no `top`"),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, LISTEN_FDNAMES, JOURNAL_STREAM",
        "set by systemd, and used as sd_notify(3), sd_listen_fds(3) and systemd.exec(5) say",
    ),
)

FILES = (
    ("/etc/relayd/relay.toml", "the configuration, unless `-c` names another: see relay.toml(5)"),
    (ADMIN_SOCKET.path, "the admin API, unless `[admin] listen` says otherwise"),
)

EXAMPLE = """\
[defaults]
connect_timeout = "2s"

[listeners.web]
bind = "0.0.0.0:8080"
targets = ["10.0.0.11:80", "10.0.0.12:80"]

[listeners.dns]
type = ["stream", "dgram"]
bind = ["0.0.0.0:53", "[::]:53"]
ipv6_only = true
targets = ["10.0.0.53", "[2001:db8::53]"]
session_timeout = "10s"
max_responses = 1

[listeners.pg]
bind = "unix:/run/relayd/pg.sock"
mode = "0660"
targets = ["db.example.com:5432"]
"""
