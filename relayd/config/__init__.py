"""Configuration: TOML text → a validated model → `spec`. The only room that imports pydantic or tomli.

Both take longer to import than all the rest of relayd, and a restart on a file that has not changed needs neither: so
what reads files is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from relayd.config.problems import ConfigError, Problem

if TYPE_CHECKING:
    from relayd.config.loading import Loaded, files_of, load, load_admin

__all__ = ["ConfigError", "Loaded", "Problem", "files_of", "load", "load_admin"]


def __getattr__(name: str) -> Any:
    """PEP 562: called for what is not there yet."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from relayd.config import loading

    return getattr(loading, name)
