"""relayd(8) and relay.toml(5)."""

from manual import facts, roff
from manual.commands import Command, Option, commands, exit_codes
from manual.keys import Key, KeyTable, tables

_SEE_ALSO_8 = "relay.toml(5), systemctl(1), journalctl(1), systemd.socket(5), systemd.service(5)"
_SEE_ALSO_5 = "relayd(8), systemd.socket(5), socket(7), tcp(7), udp(7), unix(7)"

_DESCRIPTION_8 = (
    "`relayd` takes connections on TCP and Unix stream sockets, and datagrams on UDP and Unix datagram sockets, and "
    "relays them to targets of any of these kinds, as relay.toml(5) says. A control process owns the listening "
    "sockets; workers move the bytes.",
    "A reload applies the difference between two configurations as one transaction. A restart under systemd, and an "
    "upgrade in place, keep every connection and every session of datagrams, with the bytes on their way.",
)
_DESCRIPTION_5 = (
    "`relay.toml` is the configuration of relayd(8), a TOML file, `/etc/relayd/relay.toml` unless `-c` names another. "
    "A listener is a table `[listeners.NAME]` of two keys at least: where clients come (`bind`) and where they are "
    "sent (`targets`).",
    "A key that relayd does not know is an error, and so is a value of the wrong type, a key where it can do nothing, "
    "and a file that cannot be read. `relayd check` prints every error at once, each with its line and column; "
    "`relayd show-config` prints what is in force, defaults included.",
)
_COMMANDS = (
    "`reload`, `confirm`, `plan`, `target`, `explain`, `log-level`, `status`, `connections`, `kill`, `top` and "
    "`show-config --running` ask a running daemon by its admin API. They find it by `--admin`, else by `RELAYD_ADMIN` "
    "in the environment, else by `[admin] listen` of the file given with `-c`, else at its default address. A token, "
    "which it may want by TCP, is in the file of `--token-file`, else of `RELAYD_ADMIN_TOKEN_FILE`, else of `[admin] "
    "token_file` of the file given with `-c`."
)
_LISTENER_KEYS = "Each says first for what it is. A listener that says a key where it can do nothing has an error."


def relayd_8() -> str:
    """The command: verbs, options, exit codes, signals, environment, files."""
    return "".join(
        (
            roff.title("RELAYD", 8, "System Administration"),
            roff.section("NAME"),
            r"relayd \- relay TCP, UDP and Unix sockets" + "\n",
            roff.section("SYNOPSIS"),
            *(_synopsis(command) for command in commands()),
            roff.section("DESCRIPTION"),
            *map(roff.paragraph, _DESCRIPTION_8),
            roff.section("COMMANDS"),
            roff.paragraph(_COMMANDS),
            *(_command(command) for command in commands()),
            roff.section("EXIT STATUS"),
            roff.items((str(code), text) for code, text in exit_codes().items()),
            roff.section("SIGNALS"),
            roff.paragraph("To the control process, which is the one that was started:"),
            roff.items(facts.SIGNALS),
            roff.section("ENVIRONMENT"),
            roff.items(facts.ENVIRONMENT),
            roff.section("FILES"),
            roff.items(facts.FILES),
            roff.section("SEE ALSO"),
            roff.paragraph(_SEE_ALSO_8),
        )
    )


def relay_toml_5() -> str:
    """The file: every key, the forms of addresses, an example."""
    return "".join(
        (
            roff.title("RELAY.TOML", 5, "File Formats"),
            roff.section("NAME"),
            r"relay.toml \- configuration of relayd" + "\n",
            roff.section("DESCRIPTION"),
            *map(roff.paragraph, _DESCRIPTION_5),
            roff.paragraph(facts.DURATIONS),
            roff.section("KEYS"),
            *map(_keys, tables()),
            roff.section("ADDRESSES"),
            *(_address(*row) for row in facts.ADDRESSES),
            roff.paragraph(facts.ADDRESSES_NOTE),
            roff.section("EXAMPLE"),
            roff.literal(facts.EXAMPLE),
            roff.section("SEE ALSO"),
            roff.paragraph(_SEE_ALSO_5),
        )
    )


def _synopsis(command: Command) -> str:
    options = "".join(f" [{_names(option)}]" if option.names else f" {_names(option)}" for option in command.options)
    return f".PP\n\\fBrelayd {roff.escaped(command.name)}\\fR{options}\n"


def _command(command: Command) -> str:
    first, *more = command.help
    return roff.subsection(command.name) + "".join(
        (
            roff.paragraph(first),
            *(roff.literal(text) if text.startswith(" ") else roff.paragraph(text) for text in more),
            *(roff.item(_names(option), option.meaning) for option in command.options),
        )
    )


def _names(option: Option) -> str:
    names = ", ".join(rf"\fB{roff.escaped(name)}\fR" for name in option.names)
    return " ".join(filter(None, (names, rf"\fI{roff.escaped(option.value)}\fR" if option.value else "")))


def _keys(table: KeyTable) -> str:
    note = roff.paragraph(_LISTENER_KEYS) if table.of_listeners else ""
    return roff.subsection(table.title) + roff.paragraph(table.meaning) + note + "".join(map(_key, table.keys))


def _key(key: Key) -> str:
    applies = f"For {key.applies}. " if key.applies and key.applies != "both" else ""
    value = f"Value: {key.form}. " + (f"Default: {key.default}." if key.default else "Required.")
    return roff.item(rf"\fB{roff.escaped(key.name)}\fR", applies + key.meaning, value)


def _address(text: str, bind: str, target: str, meaning: str) -> str:
    where = "" if bind and target else " (bind only)" if bind else " (targets only)"
    return roff.item(rf"\fB{roff.escaped(text)}\fR{where}", f"{meaning[0].upper()}{meaning[1:]}.")
