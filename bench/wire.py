"""What the load generator and the target say to each other: sizes, bytes and the bulk stream's header and trailer."""

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
