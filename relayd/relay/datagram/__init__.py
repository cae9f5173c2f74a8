"""Datagrams of one listener: receiving sockets, the session table, sessions, and spreading without sessions."""
