"""Configurations of other relays: their text in, the text of a relay.toml and all that had no place in it out. Pure.

`translation.translate` reads a dialect into drafts of listeners, `rendering.to_toml` writes them, and
`loadable.loadable` takes out what the loader of relayd would refuse.
"""

import enum

__all__ = ["Dialect"]


class Dialect(enum.Enum):
    """Whose configuration it is."""

    RINETD = "rinetd"
    HAPROXY = "haproxy"
    NGINX = "nginx"
