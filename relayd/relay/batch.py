"""What all records of one batch of a parcel refer to by a number (R4)."""

from relayd.choosing.group import Choice

__all__ = ["Choices"]


class Choices:
    """The choices that a batch speaks of, each once, in the order of their numbers."""

    __slots__ = ("_by_identity", "_by_value", "every")

    def __init__(self) -> None:
        self.every: list[Choice] = []
        #: First, for to hash a choice takes longer than all else that is written down of a connection.
        self._by_identity: dict[int, int] = {}
        self._by_value: dict[Choice, int] = {}

    def number(self, choice: Choice) -> int:
        """That of `choice`, which the caller keeps alive for as long as this."""
        number = self._by_identity.get(id(choice))
        if number is None:
            number = self._by_value.setdefault(choice, len(self.every))
            if number == len(self.every):
                self.every.append(choice)
            self._by_identity[id(choice)] = number
        return number
