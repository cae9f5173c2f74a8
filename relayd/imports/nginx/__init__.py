"""nginx.conf: `syntax` (text → directives), `listens`, `upstreams`, and `reading`, which puts them together."""
