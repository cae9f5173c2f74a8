"""How the connections of a worker are looked at."""

from collections.abc import Collection, Iterator
from typing import cast

from relayd.channel.live import Rates
from relayd.outcomes import Outcome
from relayd.relay.live import View
from relayd.relay.stream.connection import Connection, Phase
from relayd.relay.stream.record import client_of, connection_head, connection_line
from relayd.relay.stream.services import StreamServices

__all__ = ["ConnectionView"]


class ConnectionView(View[Connection]):
    """See `View`. Those of removed listeners are there as long as they live."""

    def __init__(self, services: StreamServices, worker: int) -> None:
        self._services = services
        self._worker = worker

    def all(self) -> Iterator[tuple[str, Collection[Connection]]]:
        """By listener."""
        for service in self._services.every:
            yield service.spec.name, cast("Collection[Connection]", service.connections)  # there are no other ones

    def over(self, live: Connection) -> bool:
        """It has ended."""
        return live.phase is Phase.CLOSED

    def conn_id(self, live: Connection) -> str:
        """What the log calls it."""
        return live.conn_id

    def client(self, live: Connection) -> tuple[str, int]:
        """Address and port."""
        return client_of(live)

    def target(self, live: Connection) -> str:
        """The last one that was dialled."""
        return live.choice.label if live.choice is not None else ""

    def moved(self, live: Connection) -> tuple[int, int]:
        """Bytes in and out."""
        return live.moved

    def began(self, live: Connection) -> float:
        """When it was accepted."""
        return live.started_at

    def used(self, live: Connection) -> float:
        """When a byte has last moved."""
        return live.active_at

    def head(self, live: Connection) -> str:
        """Who it is."""
        return connection_head(live, self._worker)

    def line(self, live: Connection, head: str, rates: Rates, *, tcp_info: bool) -> str:
        """What there is to see."""
        return connection_line(live, head, rates, tcp_info=tcp_info)

    def end(self, live: Connection) -> None:
        """End it."""
        try:
            live.end(Outcome.KILLED)
        except Exception as error:
            live.crashed(error)
