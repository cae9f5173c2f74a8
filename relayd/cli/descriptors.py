"""How many files the daemon may have open, if it is started as this command was."""

import resource

#: setrlimit(2) takes "unlimited" for more descriptors than any process has; the kernel's own ceiling is fs.nr_open.
_NOFILE_UNLIMITED = 1024 * 1024


def nofile_max() -> int:
    """The hard limit on open files: the daemon raises its soft limit to it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _NOFILE_UNLIMITED if hard == resource.RLIM_INFINITY else hard
