"""The file of `[admin] token_file`: where it is, and the token in it. A token is in no message."""

import os
import re
import stat
from collections.abc import Mapping

from relayd.config.problems import printable
from relayd.errors import RelaydError

__all__ = ["CREDENTIALS", "NoCredentials", "TokenError", "read_token", "token_path"]

#: How a path begins that is below the directory of LoadCredential= (systemd.exec(5)).
CREDENTIALS = "${CREDENTIALS_DIRECTORY}/"
#: As many characters of base64 have 96 bits: nobody guesses them, however long the API answers.
TOKEN_CHARACTERS_MIN = 16
#: More is no token, and a request has 8 KiB for all that a header says.
TOKEN_BYTES_MAX = 1024

#: What HTTP takes in `Authorization: Bearer`, and whatever else can be typed without a space.
_TOKEN = re.compile(rb"[!-~]+\Z")


class TokenError(RelaydError):
    """There is no token in the file. `help` is a line of advice, or empty."""

    def __init__(self, message: str, help_text: str = "") -> None:
        super().__init__(message)
        self.help = help_text


class NoCredentials(TokenError):
    """The file is a credential of systemd, and this process has none."""


def token_path(file: str, environ: Mapping[str, str] = os.environ) -> str:
    """`file`, as relay.toml has it, as a path. Raises NoCredentials."""
    if not file.startswith(CREDENTIALS):
        return file
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise NoCredentials(
            "CREDENTIALS_DIRECTORY is not set",
            f"help: systemd sets it where the unit has LoadCredential={file.removeprefix(CREDENTIALS)}:/path/to/it",
        )
    return f"{directory}/{file.removeprefix(CREDENTIALS)}"


def read_token(file: str, environ: Mapping[str, str] = os.environ) -> str:
    """The token in `file`, as relay.toml has it. Never blocks on what is no regular file. Raises TokenError."""
    path = token_path(file, environ)
    shown = printable(path)
    try:
        # O_NONBLOCK: nobody may hold this up by a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise TokenError(f"{shown} is not a file")
            if mode & stat.S_IRWXO:
                advice = f"help: chmod o= {shown}, and make another token: somebody may have read this one"
                raise TokenError(f"{shown} is open to every user of this machine", advice)
            data = os.read(descriptor, TOKEN_BYTES_MAX + 3)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise TokenError(f"{shown} cannot be read: {error.strerror or error}") from None
    token = data.removesuffix(b"\n").removesuffix(b"\r")
    if len(token) < TOKEN_CHARACTERS_MIN:
        what = f"a token of {len(token)} characters: the least is {TOKEN_CHARACTERS_MIN}" if token else "no token"
        raise TokenError(f"{shown} has {what}", _make(shown))
    if len(token) > TOKEN_BYTES_MAX:
        raise TokenError(f"{shown} has more than the {TOKEN_BYTES_MAX} characters that a token may have", _make(shown))
    if not _TOKEN.match(token):
        raise TokenError(f"{shown} is not one line of visible ASCII characters", _make(shown))
    return token.decode("ascii")


def _make(path: str) -> str:
    return f"help: (umask 077; openssl rand -base64 32 > {path})"
