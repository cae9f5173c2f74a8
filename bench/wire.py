"""What the load generator and the target say to each other: sizes, bytes, headers."""

import array
import struct

REQUEST = b"bench request " + b"q" * 50
"""64 bytes."""
ANSWER = b"bench answer  " + b"a" * 242
"""256 bytes."""

BLOCK = bytes((n * n // 251 + n) & 0xFF for n in range(256 * 1024))
"""A bulk stream is this block again and again, 256 KiB, then the trailer."""

HEADER = struct.Struct("!dIB")
"""What a bulk client asks for: send for this many seconds, but at least this many blocks; 1 to have them hashed."""

TRAILER = struct.Struct("!Q32s")
"""The end of a bulk stream: bytes before the trailer, and their SHA-256 (zeros unless it was asked for)."""

CONGESTION = b"cubic"
"""Named on both ends of the load: a kernel whose default is bbr paces loopback, and figures would not compare."""

PATIENCE_S = 10
"""How long nothing at all may arrive before a load gives up: far above any pause of a working relay."""
PATIENCE = struct.pack("@ll", PATIENCE_S, 0)  # struct timeval: a blocking call ends with EAGAIN then, see socket(7)

PROBE = b"bench probe"
"""What every target of datagrams sends back as it is: how a relay without a readiness message is found ready."""

TRIP = struct.Struct("!IQ")
"""How a round trip's datagram begins: the client's index, and a number, higher for each that the client sends."""

BURST_DATAGRAM_BYTES = 1200
"""What QUIC may send everywhere (RFC 9000, section 14.1)."""
BURST_DATAGRAMS = 50
"""60,000 bytes: what fits into one send with UDP_SEGMENT, at most 64 KiB and 64 datagrams (Linux before 6.9)."""
BURST_BYTES = BURST_DATAGRAMS * BURST_DATAGRAM_BYTES
NUMBER_BYTES = 8
"""Each datagram of a burst begins with the number of the burst, in the byte order of the machine."""
BURST_CHECKED = 1
"""The bit in the number of a burst whose bytes the target is to compare."""
BURST_ACK = struct.Struct("!Q?")
"""The target's answer to a whole burst: its number, and False when bytes or sizes were wrong."""


class WrongDataError(Exception):
    """The relay did not deliver what was sent."""


def trip(index: int, number: int, size: int) -> bytes:
    """A round trip's datagram of `size` bytes."""
    return TRIP.pack(index, number) + BLOCK[: size - TRIP.size]


def number_burst(words: memoryview, number: int) -> None:
    """Put `number` at the beginning of every datagram of a burst, given as a view of format Q."""
    words[:: BURST_DATAGRAM_BYTES // NUMBER_BYTES] = memoryview(array.array("Q", [number]) * BURST_DATAGRAMS)


def burst(number: int) -> bytearray:
    """A burst as it is sent. Its datagrams differ from each other."""
    data = bytearray(BLOCK[:BURST_BYTES])
    number_burst(memoryview(data).cast("Q"), number)
    return data
