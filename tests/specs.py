"""Parts of a spec that most tests take as they are."""

from relayd.spec import Binding, Datagram, Health, OnTargetError, SessionMode

BINDING = Binding(
    backlog=64,
    ipv6_only=False,
    interface=None,
    freebind=False,
    fast_open=False,
    defer_accept_s=None,
    mode=0o660,
    user_id=None,
    group_id=None,
)
DATAGRAM = Datagram(
    session_timeout_s=60.0,
    max_sessions=None,
    max_responses=None,
    session=SessionMode.CLIENT,
    on_target_error=OnTargetError.MOVE,
)
#: Nobody is passed over for what other clients have met.
TRUSTING = Health(max_ejected=0)
