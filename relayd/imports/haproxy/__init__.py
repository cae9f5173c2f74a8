"""haproxy.cfg: `syntax` (text → sections), `proxies` (sections → proxies), `binds`, `servers`, `balancing`, `probes`
(what is asked), `checks` (of which servers, and how often), `timeouts`, and `reading`, which puts them together.
"""
