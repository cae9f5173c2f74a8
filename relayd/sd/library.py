"""systemd-python, in one place, and what to do where it is missing. The control process only.

It is a C extension that comes as source alone, so it is the one dependency that can be absent from what looks like an
installation (`pip install --no-deps`, another Python), and the one that needs a library of the system to be loaded.
"""

from relayd.errors import RelaydError

__all__ = ["NoSystemdPython", "listen_fds_with_names", "notify"]

#: The names that Debian and Ubuntu have for them; docs/how-to/pip.md has others.
_INSTALL = (
    "apt-get install gcc libc6-dev pkg-config libsystemd-dev python3-dev, then pip install systemd-python; or, for the"
    " distribution's own Python, apt-get install python3-systemd"
)
_LIBRARY = "apt-get install libsystemd0"


class NoSystemdPython(RelaydError):
    """systemd-python is not there, or cannot be loaded. The text, one line, says what to install."""

    def __init__(self, error: ImportError) -> None:
        # The loader names the library that it does not find: "libsystemd.so.0: cannot open shared object file".
        advice = _LIBRARY if "libsystemd" in str(error) else _INSTALL
        super().__init__(f"relayd: systemd-python cannot be imported ({error}): {advice}")


try:
    from systemd.daemon import listen_fds_with_names, notify
except ImportError as _error:
    raise NoSystemdPython(_error) from _error
