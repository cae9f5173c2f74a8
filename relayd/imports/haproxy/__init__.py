"""haproxy.cfg: `syntax` (text → sections), `proxies` (sections → proxies), `binds`, `servers`, `timeouts`, and
`reading`, which puts them together.
"""
