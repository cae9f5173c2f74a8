"""Exit codes of commands. Those of `run` are in control.main.

What stands above each code as `#:` is what docs/reference.md and relayd(8) say of it.
"""

#: The answer is no: `check` found errors, a reload was refused, nothing waits for `confirm`, there is nothing to
#: `kill`, output cannot be written.
EXIT_NO = 1
#: Usage: no such command or option.
EXIT_USAGE = 2  # click's, and so typer's, which is what uses it
#: No daemon could be reached.
EXIT_UNREACHABLE = 3
#: `plan`: a reload would change something.
EXIT_CHANGES = 10
