"""`relayd`: the way in. `relayd run -c FILE`, which is how a service is started, takes the short one: after a restart
clients wait, and a tenth of a second less is a tenth of a second less. Everything else goes by `cli.verbs`.
"""

import sys
from collections.abc import Sequence

__all__ = ["main"]

DEFAULT_FILE = "/etc/relayd/relay.toml"


def main() -> None:
    """Do what the command line says. Ends the process."""
    file = _plain_run(sys.argv[1:])
    if file is not None:
        from relayd.control import main as control

        control.run(file)
    import signal

    from relayd.cli.verbs import main as verbs

    # Whoever has started this may have blocked them, as a daemon that asks its successor does: Ctrl-C is to end it.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sys.exit(verbs())


def _plain_run(arguments: Sequence[str]) -> str | None:
    """The file, where this is `run` with at most a file: `cli.verbs` would say the same. None: it has to be asked."""
    match arguments:
        case ["run"]:
            return DEFAULT_FILE
        case ["run", "-c" | "--config", str(file)] if file:
            return file
    return None
