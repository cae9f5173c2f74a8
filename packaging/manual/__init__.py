"""Makes the pages that say again what the code says: docs/reference.md, relayd(8), relay.toml(5), the journal's
catalog, and completions for shells.

`packaging/dev manual` writes them; tests/unit/manual holds that they are current. A tool of this repository, and no
part of the package: nothing in relayd/ imports it.

    comments            `#:` comments of the code: codes, counts, fields and kinds of events
    keys, commands      what pydantic and typer know
    facts               what no module of relayd has in words: addresses, signals, files
    reference, pages    the pages: Markdown, roff
    catalog             what `journalctl -x` adds, with advice
    completions         what typer makes for each shell
"""
