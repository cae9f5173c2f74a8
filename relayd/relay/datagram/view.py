"""How the sessions of a worker are looked at."""

from collections.abc import Collection, Iterator
from typing import cast

from relayd.channel.live import Rates
from relayd.outcomes import Outcome
from relayd.relay.datagram.record import session_head, session_line
from relayd.relay.datagram.services import DatagramServices
from relayd.relay.datagram.session import Phase, Session
from relayd.relay.live import View

__all__ = ["SessionView"]


class SessionView(View[Session]):
    """See `View`. Those of removed listeners are there as long as they live."""

    def __init__(self, services: DatagramServices, worker: int) -> None:
        self._services = services
        self._worker = worker

    def all(self) -> Iterator[tuple[str, Collection[Session]]]:
        """By listener."""
        for service in self._services.every:
            yield service.spec.name, cast("Collection[Session]", service.table)  # there are no other ones

    def over(self, live: Session) -> bool:
        """It has ended."""
        return live.phase is Phase.CLOSED

    def conn_id(self, live: Session) -> str:
        """What the log calls it."""
        return live.conn_id

    def client(self, live: Session) -> tuple[str, int]:
        """Address and port."""
        return live.receiver.client_text(live.key)

    def target(self, live: Session) -> str:
        """Where it goes."""
        return live.choice.label

    def moved(self, live: Session) -> tuple[int, int]:
        """Bytes in and out."""
        return live.bytes_in, live.bytes_out

    def began(self, live: Session) -> float:
        """When its first datagram came."""
        return live.started_at

    def used(self, live: Session) -> float:
        """When a datagram has last moved, or some milliseconds later."""
        return live.noted_until

    def head(self, live: Session) -> str:
        """Who it is."""
        return session_head(live, self._worker)

    def line(self, live: Session, head: str, rates: Rates, *, tcp_info: bool) -> str:  # noqa: ARG002  # UDP has none
        """What there is to see."""
        return session_line(live, head, rates)

    def end(self, live: Session) -> None:
        """End it."""
        try:
            live.end(Outcome.KILLED)
        except Exception as error:
            live.crashed(error)
