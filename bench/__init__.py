"""The benchmark: relayd beside other relays, in interleaved rounds. `bench/run --help`, `bench/README.md`."""
