"""One worker process as the control process sees it: a process id, a channel, a pidfd, and its standard error."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence

from relayd.channel import Channel, ChannelClosed, CodecError
from relayd.channel.messages import Message
from relayd.control.spawning import Spawned, spawn
from relayd.values import dataclass

__all__ = ["End", "WorkerProcess"]

#: The end of standard error that is kept: a traceback of usual depth.
_STDERR_BYTES_MAX = 8 * 1024
#: A worker whose channel is closed can be told nothing any more. If it is just ending, it is gone by then.
_CHANNEL_GRACE_S = 0.5
#: Wait before sending again what the kernel had no room for: many workers at once, each with thousands of descriptors
#: on their way, exceed what one user may have in flight (ETOOMANYREFS) until the first have received theirs.
_SEND_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended: `status` is its exit code, or minus the signal that killed it; `stderr` its last words."""

    status: int
    stderr: str

    def __str__(self) -> str:
        if self.status < 0:
            try:
                how = f"was killed by {signal.Signals(-self.status).name}"
            except ValueError:  # a real-time signal has no name
                how = f"was killed by signal {-self.status}"
        else:
            how = f"exited with code {self.status}"
        last_words = self.stderr.rpartition("\n")[2]
        return f"{how}: {last_words}" if last_words else how


class WorkerProcess:
    """A running worker. Owns its process (it is always reaped), its pidfd, this end of the channel and of stderr.

    `on_message` gets what it says; `on_end` is called once, after the last message, when nothing is left of it.
    """

    def __init__(
        self,
        spawned: Spawned | None,
        command: Sequence[str],
        on_message: Callable[[Message], None],
        on_end: Callable[[End], None],
    ) -> None:
        """The one that is `spawned` already, or, None, by `command`. Raises OSError when that fails (no memory, too
        many processes); nothing is left then.
        """
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._stderr_tail = bytearray()
        self._close_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._sent: asyncio.Future[None] | None = None
        spawned = spawned or spawn(command)
        try:
            self._pidfd = os.pidfd_open(spawned.process.pid)
        except BaseException:
            spawned.kill()
            raise
        self._process, self._channel, self._stderr = spawned.process, Channel(spawned.channel), spawned.stderr
        self._channel_open = True
        self._loop.add_reader(self._channel.fileno(), self._receive)
        self._loop.add_reader(self._stderr, self._read_stderr)
        self._loop.add_reader(self._pidfd, self._ended)

    @property
    def pid(self) -> int:
        """Its process id. It stays its own until `on_end`: a process that is not reaped keeps its number."""
        return self._process.pid

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send now or as soon as the channel takes it; nothing when the worker has closed it (its end follows)."""
        if not self._channel_open:
            return
        try:
            self._channel.send(message, fds)
        except ChannelClosed:
            self._close_channel()
        else:
            self._flush_later()

    async def give(self, message: Message, fds: Sequence[int]) -> None:
        """As `send`; owns `fds`. Returns when the kernel has taken everything, so that no more than this is on its
        way.
        """
        self.send(message, fds)
        try:
            await self.sent()
        finally:
            for fd in fds:
                os.close(fd)

    async def sent(self) -> None:
        """Returns when the kernel has taken everything, or the worker has closed its end."""
        while self._channel_open and self._channel.backlog:
            if self._sent is None or self._sent.done():
                self._sent = self._loop.create_future()
            await asyncio.shield(self._sent)  # of others who wait as well

    @property
    def no_room(self) -> bool:
        """Something waits to be sent for which the kernel has no room: not for a worker that does not read."""
        return self._channel_open and bool(self._channel.backlog) and not self._channel.blocked

    def kill(self) -> None:
        """SIGKILL. `on_end` follows."""
        with contextlib.suppress(ProcessLookupError):  # it has ended, and its pidfd is about to say so
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _flush(self) -> None:
        if not self._channel_open:
            return
        try:
            self._channel.flush()
        except ChannelClosed:
            self._close_channel()
        else:
            self._flush_later()

    def _flush_later(self) -> None:
        """Have the event loop send what is still queued: once there is room in the channel, or after a while."""
        if not self._channel.backlog:
            self._note_sent()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
        if self._channel.blocked:
            self._loop.add_writer(self._channel.fileno(), self._flush)
            return
        self._loop.remove_writer(self._channel.fileno())
        if self._channel.backlog:
            self._send_timer = self._loop.call_later(_SEND_RETRY_S, self._flush)

    def _note_sent(self) -> None:
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)

    def _receive(self) -> None:
        try:
            for message, fds in self._channel.receive():
                for fd in fds:  # no message of a worker carries any
                    os.close(fd)
                self._on_message(message)
        except ChannelClosed:
            self._close_channel()
        except CodecError as error:
            self._keep_stderr(f"\nits message was not understood: {error}".encode())
            self.kill()  # first: a worker that meets a closed channel ends by itself, and quickly, as if all were well
            self._close_channel()

    def _close_channel(self) -> None:
        if not self._channel_open:
            return
        self._channel_open = False
        self._note_sent()
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        if self._send_timer is not None:
            self._send_timer.cancel()
        self._channel.close()
        self._close_timer = self._loop.call_later(_CHANNEL_GRACE_S, self.kill)

    def _read_stderr(self) -> None:
        try:
            while data := os.read(self._stderr, _STDERR_BYTES_MAX):
                self._keep_stderr(data)
        except BlockingIOError:
            return
        self._loop.remove_reader(self._stderr)  # end of file: it would be readable for ever

    def _keep_stderr(self, data: bytes) -> None:
        self._stderr_tail += data
        del self._stderr_tail[:-_STDERR_BYTES_MAX]

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        try:
            if self._channel_open:
                self._receive()  # the last report
            self._read_stderr()
        finally:  # whatever is wrong with its last words, it is reaped and replaced
            self._reap()

    def _reap(self) -> None:
        self._close_channel()
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._loop.remove_reader(self._stderr)
        os.close(self._stderr)
        status = self._process.wait()  # does not wait: a readable pidfd is a process that has ended (pidfd_open(2))
        os.close(self._pidfd)
        self._on_end(End(status, self._stderr_tail.decode(errors="backslashreplace").strip()))
