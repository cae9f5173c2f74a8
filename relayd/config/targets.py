"""Whether the port of a target can follow the ports of the binds as its rule says. Pure."""

from relayd.address import ServiceAddress, SystemdAddress, UnixAddress
from relayd.config.ports import PORT_MAX, TargetEntry, span
from relayd.config.problems import quote
from relayd.spec import Bind, PortRule


def mismatch(entry: TargetEntry, binds: tuple[Bind, ...]) -> tuple[str, str]:
    """What stands in the way of `entry` for a listener with `binds`, and a suggestion; "" and "" when nothing does."""
    if entry.rule is PortRule.FIXED:
        return "", ""
    for bind in binds:
        found = _of_ranges(entry, bind) if entry.rule is PortRule.INDEX else _of_offset(entry, bind)
        if found[0]:
            return found
    return "", ""


def _of_ranges(entry: TargetEntry, bind: Bind) -> tuple[str, str]:
    if entry.ports == bind.ports:
        return "", ""
    shown = quote(str(bind))
    if isinstance(bind.address, SystemdAddress):
        return f"a range of ports needs a bind of as many, and which port {shown} has is for systemd to say", ""
    if isinstance(bind.address, UnixAddress):
        return f"a range of ports needs a bind of as many; {shown} has none", ""
    first = 0 if isinstance(entry.address, UnixAddress | ServiceAddress) else entry.address.port
    message = f"{entry.ports} ports for the {_counted(bind.ports)} of {shown}"
    if first + bind.ports - 1 > PORT_MAX:
        return message, ""
    meant = TargetEntry(entry.address, PortRule.INDEX if bind.ports > 1 else PortRule.FIXED, 0, bind.ports)
    return message, f"did you mean {quote(str(meant))}?"


def _of_offset(entry: TargetEntry, bind: Bind) -> tuple[str, str]:
    shown, (first, last) = quote(str(bind)), span(bind)
    if isinstance(bind.address, SystemdAddress):
        # Not even where it is known: the same file would mean one thing to `check` and another to the daemon.
        example = "" if entry.offset else f"did you mean {quote(f'{entry}:80')}?"
        return f"the port follows that of {shown}, which is for systemd to say", example
    if isinstance(bind.address, UnixAddress):
        if entry.offset:
            return f"the offset counts from the port of the bind; {shown} has none", ""
        return f"the port is missing, and {shown} has none to take", f"did you mean {quote(f'{entry}:80')}?"
    if first == 0:
        return f"the port follows that of {shown}, which the kernel chooses", ""
    if last + entry.offset > PORT_MAX:
        most = PORT_MAX - last
        message = f"{last} of {shown} and {entry.offset} is {last + entry.offset}, beyond port {PORT_MAX}"
        return message, f"help: the offset is at most {most} here"
    return "", ""


def _counted(ports: int) -> str:
    return "1 port" if ports == 1 else f"{ports} ports"
