"""`relayd top`. What keys do (`state`) and what is on the screen (`screen`) is pure; `shell` turns, `terminal` has the
terminal, and `poller` asks the daemon.
"""
