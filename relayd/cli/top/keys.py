"""Bytes of a terminal -> keys. Pure.

A key is a character as it was typed, or a name: "up", "down", "left", "right", "page up", "page down", "home", "end",
"enter", "escape", "backspace". Other keys of a terminal, and control characters, are nothing.
"""

import codecs
import re

__all__ = ["Keys"]

#: What xterm and those like it send, by the parameter, or the final byte, of the sequence (ECMA-48 5.4).
_FINAL = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
_TILDE = {"1": "home", "4": "end", "5": "page up", "6": "page down", "7": "home", "8": "end"}
_SINGLE = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape"}
_SEQUENCE = re.compile(r"\x1b(?:\[([0-9;?<=>]*)[ -/]*([@-~])|O([@-~]))")
#: A sequence that has not come whole.
_BEGUN = re.compile(r"\x1b(?:\[[0-9;?<=>]*[ -/]*|O)\Z")


class Keys:
    """Takes bytes as they come. A lone escape at the end of what was read is the key: terminals send the sequence of a
    key at once.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """The keys that `data` completes."""
        text = self._rest + self._decode(data)
        self._rest = ""
        found: list[str] = []
        at = 0
        while at < len(text):
            if sequence := _SEQUENCE.match(text, at):
                found += _named(sequence)
                at = sequence.end()
            elif _BEGUN.match(text, at):
                self._rest = text[at:]
                break
            else:
                character = text[at]
                if character in _SINGLE:
                    found.append(_SINGLE[character])
                elif character.isprintable():
                    found.append(character)
                at += 1
        return found


def _named(sequence: "re.Match[str]") -> list[str]:
    parameters, final, single = sequence.groups()
    name = _TILDE.get(parameters) if final == "~" else _FINAL.get(single or final)
    return [name] if name else []
