"""Makes the pages that say again what the code says: docs/reference.md, relayd(8) and relay.toml(5).

`python -m manual` writes them; tests/unit/manual holds that they are current. A tool of this repository, and no part of
the package: nothing in relayd/ imports it.

    comments            `#:` comments of the code: codes, counts, fields and kinds of events
    keys, commands      what pydantic and typer know
    facts               what no module of relayd has in words: addresses, signals, files
    reference, pages    the pages: Markdown, roff
"""
