"""The sockets that systemd has passed to this process."""

import os
from collections.abc import Iterable

from relayd.address import SystemdAddress
from relayd.net.listening import ListeningSocket, listen_on_passed
from relayd.net.passed import describe
from relayd.sd.activation import Inherited
from relayd.spec import Spec
from relayd.spec.passed import Inventory, Passed, Unusable, listed
from relayd.spec.sockets import Endpoint, endpoints

__all__ = ["PassedSockets"]


class PassedSockets:
    """Everything that .socket units have passed, by name. Owns it for as long as the daemon lives: a reload may let go
    of a name and come back to it, and systemd passes nothing a second time.
    """

    def __init__(self, inherited: Iterable[Inherited] = ()) -> None:
        """Takes the descriptors, in the order in which they were passed."""
        self._fds: list[int] = []
        #: Of one name and type, in order.
        self._sockets: dict[tuple[str, bool], list[int]] = {}
        found: dict[str, list[Passed | Unusable]] = {}
        for one in inherited:
            self._fds.append(one.fd)
            what = describe(one.fd)
            found.setdefault(one.name, []).append(what)
            if isinstance(what, Passed):
                self._sockets.setdefault((one.name, what.datagram), []).append(one.fd)
        #: What `config.load` has to know of them.
        self.inventory: Inventory = {name: tuple(sockets) for name, sockets in found.items()}

    def listen(self, endpoint: Endpoint) -> ListeningSocket:
        """The socket of `endpoint`, which is one of systemd's, with the options of its listener. It stays this
        object's: closing what is returned leaves it open. Raises ListenFailed.
        """
        listener, bind = endpoint.listener, endpoint.bind
        if not isinstance(bind.address, SystemdAddress):
            raise TypeError(f"{bind}: not a socket of systemd")
        options = None if endpoint.datagram or listener.stream is None else listener.stream.options
        fd = self._sockets[bind.address.name, endpoint.datagram][endpoint.index]
        return listen_on_passed(fd, listener.binding, options)

    def lacks(self, spec: Spec) -> bool:
        """Whether `spec` has a socket that was not passed."""
        return any(
            isinstance(endpoint.bind.address, SystemdAddress)
            and endpoint.index >= len(self._sockets.get((endpoint.bind.address.name, endpoint.datagram), ()))
            for endpoint in endpoints(spec)
        )

    def unused(self, spec: Spec) -> str:
        """What no listener of `spec` uses, for people; "" when nothing is left over."""
        used = {
            (bind.address.name, datagram)
            for listener in spec.listeners
            for bind in listener.binds
            if isinstance(bind.address, SystemdAddress)
            for datagram, how in ((False, listener.stream), (True, listener.datagram))
            if how is not None
        }
        left = {
            name: tuple(one for one in sockets if not (isinstance(one, Passed) and (name, one.datagram) in used))
            for name, sockets in self.inventory.items()
        }
        return listed(left) if any(left.values()) else ""

    def close(self) -> None:
        """Close them all. systemd has its own, and listens on. Idempotent."""
        while self._fds:
            os.close(self._fds.pop())
