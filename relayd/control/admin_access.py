"""Who may ask the admin API, and what for: decided from what a request says of itself. Pure."""

from collections.abc import Mapping

__all__ = ["Refusal"]


class Refusal(Exception):
    """What a client is told instead of a result: `status` of HTTP, why, and `headers` that go with that."""

    def __init__(self, status: int, error: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.headers = headers or {}
