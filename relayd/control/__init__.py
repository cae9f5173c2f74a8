"""The control process (asyncio): it owns the listening sockets, supervises the workers and talks to systemd.

Start reading at `main.run`; `daemon` is one life of it, from the sockets to the last worker's end.
"""
