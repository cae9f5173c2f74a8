"""Keys that are not: what was probably meant. The words of other tools are not accepted, but they are understood."""

import difflib
import functools
from typing import Any

from relayd.config.check_table import CheckTable
from relayd.config.forms import Table
from relayd.config.model import (
    AdminTable,
    Configuration,
    DaemonTable,
    KeepaliveTable,
    ListenerLogTable,
    ListenerTable,
    LogTable,
    PoolKeys,
    PoolTable,
    Shared,
    TargetTable,
)


def _meant(words: dict[str, str]) -> dict[str, str]:
    """`{"a": "b c"}` as `{"b": "a", "c": "a"}`: what each word of other tools is called here."""
    return {word: key for key, others in words.items() for word in others.split()}


#: Inside [listeners.NAME] and [defaults].
LISTENER_WORDS = _meant(
    {
        "targets": "upstream upstreams backend backends server servers remote remotes forward forward_to forwards to "
        "dst dest destination destinations target proxy_pass proxy_to connect pass relay_to endpoint endpoints",
        "bind": "listen listen_on listen_address address addr port ports local binds bind_address on frontend",
        "idle_timeout": "timeout timeouts proxy_timeout timeout_client timeout_server inactivity_timeout read_timeout",
        "connect_timeout": "timeout_connect proxy_connect_timeout dial_timeout",
        "pool": "pools target_pool use_pool use_backend default_backend server_pool target_group",
        "type": "protocol proto kind network",
        "balance": "balancing algorithm lb_policy lb_method method strategy policy scheduler load_balancing balancer",
        "dial_attempts": "retries attempts tries max_retries",
        "health_check": "check checks health healthcheck health_checks healthchecks active_health_check option_httpchk",
        "fail_open": "failopen fail_closed allow_all_down panic",
        "max_ejected": "max_ejection max_ejection_percent max_ejected_percent max_fails",
        "slow_start": "slowstart warmup warm_up ramp_up",
        "nodelay": "tcp_nodelay no_delay",
        "keepalive": "so_keepalive keep_alive tcp_keepalive",
        "interface": "bind_device bindtodevice device iface",
        "ipv6_only": "ipv6only v6only bindv6only",
        "fast_open": "tfo fastopen tcp_fast_open tcp_fastopen",
        "defer_accept": "tcp_defer_accept deferred",
        "user": "owner uid",
        "group": "gid",
        "mode": "permissions perm umask chmod socket_mode",
        "source": "source_address src bind_source outgoing_address",
        "max_lifetime": "max_age",
        "congestion": "tcp_congestion congestion_control",
        "session_timeout": "udp_timeout udp_idle_timeout session_ttl ttl",
        "max_sessions": "max_clients udp_sessions",
        "max_responses": "proxy_responses responses",
        "on_change": "on_reload on_remove on_removal reload_policy",
    }
)
#: Inside [admin].
_ADMIN_WORDS = _meant(
    {
        "listen": "bind listen_on address addr path socket socket_path port host url",
        "allow_remote": "remote remote_allowed insecure public expose",
        "read_only": "readonly ro view_only monitor watch_only",
        "hosts": "host_names hostnames allowed_hosts server_name server_names names domains",
        "token_file": "token token_path password password_file secret secret_file auth auth_file credential key_file",
    }
)
#: Inside a table of `targets`.
_TARGET_WORDS = _meant(
    {
        "address": "addr host server url endpoint target to",
        "weight": "w share priority ratio",
        "backup": "standby spare fallback secondary",
        "max_connections": "maxconn max_conns max_conn connections limit",
    }
)
#: What stands beside the address of a target, and may be looked for in a listener or a pool.
_TARGET_EXAMPLES = {"weight": "2", "backup": "true", "max_connections": "100"}
#: Inside a table of `health_check`.
_CHECK_WORDS = _meant(
    {
        "type": "kind protocol proto mode",
        "interval": "inter every period frequency check_interval",
        "unhealthy_interval": "downinter fastinter down_interval retry_interval",
        "timeout": "check_timeout timeouts deadline",
        "rise": "passes healthy healthy_threshold success_threshold successes",
        "fall": "fails unhealthy unhealthy_threshold failure_threshold failures retries",
        "send": "request payload data query",
        "expect": "match response receive answer contains",
        "path": "uri url endpoint location",
        "host": "host_header hostname server_name",
        "status": "status_code status_codes expect_status codes code",
        "command": "cmd exec script program args",
    }
)
#: At the top of the file: a table where listeners are meant, or a section by another name.
_TOP_WORDS = _meant(
    {
        "[listeners.NAME]": "listener frontend frontends server servers service services stream streams forward "
        "forwards relay relays proxy proxies tcp udp dgram endpoint endpoints listen rules",
        "[pools.NAME]": "pool backend backends upstream upstreams cluster clusters target_group target_groups",
        "[daemon]": "global main process settings general",
        "[log]": "logging logs logger",
        "[admin]": "api admin_api admin_socket management ctl control control_socket stats",
        "[defaults]": "default",
        "include": "includes import imports",
    }
)
#: What is looked at of a name; no key is near this long.
NAME_CHARACTERS = 64
_SECTION_OF: tuple[tuple[str, type[Table]], ...] = (
    ("[daemon]", DaemonTable),
    ("[log]", LogTable),
    ("[admin]", AdminTable),
    ("[listeners.NAME]", ListenerTable),
)


def model_at(path: tuple[str | int, ...]) -> type[Table]:
    """The model of the table in which the last key of `path` stands."""
    if len(path) <= 1:
        return Configuration
    inside = path[2 if path[0] in ("listeners", "pools") else 1 : -1]
    if "keepalive" in inside:
        return KeepaliveTable
    if "log" in inside:
        return ListenerLogTable
    if "health_check" in inside:
        return CheckTable
    if "targets" in inside:
        return TargetTable
    models: dict[str | int, type[Table]] = {
        "daemon": DaemonTable,
        "log": LogTable,
        "admin": AdminTable,
        "defaults": Shared,
        "pools": PoolTable,
    }
    return models.get(path[0], ListenerTable)


def advice(path: tuple[str | int, ...]) -> tuple[str, str]:
    """Message and suggestion for a key that its table does not have."""
    return _advice(model_at(path), str(path[-1])[:NAME_CHARACTERS])


@functools.lru_cache(maxsize=256)  # one mistake is often made in every listener, and looking for what is close is slow
def _advice(model: type[Table], name: str) -> tuple[str, str]:
    lower = name.lower().replace("-", "_")
    keys: dict[str, Any] = model.model_fields
    if model is Configuration and lower in _TOP_WORDS:
        return "unknown key", f"did you mean `{_TOP_WORDS[lower]}`?"
    if model is Shared and lower in ListenerTable.model_fields:
        return "stands in each listener, not in [defaults]", ""
    if lower in keys:
        return "unknown key", f"did you mean `{lower}`?"
    if issubclass(model, PoolKeys) and lower in LISTENER_WORDS:
        meant = LISTENER_WORDS[lower]
        elsewhere = model is PoolTable and meant not in keys
        return (
            "unknown key",
            f"help: `{meant}` belongs in [listeners.NAME]" if elsewhere else f"did you mean `{meant}`?",
        )
    of_target = _TARGET_WORDS.get(lower, lower)
    if issubclass(model, PoolKeys) and of_target in _TARGET_EXAMPLES:
        example = f'{{ address = "10.0.0.11:80", {of_target} = {_TARGET_EXAMPLES[of_target]} }}'
        return "unknown key", f"help: `{of_target}` belongs in a target: {example}"
    if model is TargetTable and lower in _TARGET_WORDS:
        return "unknown key", f"did you mean `{_TARGET_WORDS[lower]}`?"
    if model is CheckTable and lower in _CHECK_WORDS:
        return "unknown key", f"did you mean `{_CHECK_WORDS[lower]}`?"
    if model is AdminTable and lower in _ADMIN_WORDS:
        return "unknown key", f"did you mean `{_ADMIN_WORDS[lower]}`?"
    for section, other in _SECTION_OF:
        if lower in other.model_fields and other is not model:
            return "unknown key", f"help: `{lower}` belongs in {section}"
    close = difflib.get_close_matches(lower, list(keys), n=1)
    return "unknown key", f"did you mean `{close[0]}`?" if close else ""
