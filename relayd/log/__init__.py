"""Log lines, by a sender that never blocks. See `relayd.log.logger` for what a caller uses."""
