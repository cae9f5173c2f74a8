"""What `relayd diagnose` collects for a bug report.

`parts` is the list of what there is, as data; `sources` gets it, each with a bound; `masking` takes out what is not for
others; `collecting` has them all, masked; `packing` makes one archive of it.
"""
