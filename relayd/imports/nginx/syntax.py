"""nginx.conf as a tree of directives (nginx's own grammar: words, quotes, `;`, `{ }` and comments). Pure.

A word may be any number of lines long in quotes, and a directive any number of lines.
"""

import re
from collections.abc import Iterator
from dataclasses import field

from relayd.imports.draft import Notes
from relayd.imports.text import joined
from relayd.values import dataclass

#: Blank, a comment, a quoted word (perhaps not closed), one of ; { }, or a word, in which \ takes away the meaning of
#: what follows it and ${NAME} is a variable.
_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
      | (?P<quoted>"(?:[^"\\]+|\\.)*(?:"|\\?\Z)|'(?:[^'\\]+|\\.)*(?:'|\\?\Z))
      | (?P<mark>[;{}])
      | (?P<word>(?:\\.|\$\{[^}\s;]*\}?|[^\s;{}\\$]+|\$)+|\\)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
#: All others are for whoever reads the word: the backslash stays.
_MEANT = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "\\": "\\"}


@dataclass(slots=True)
class Directive:
    """One directive. `block` is what stands in its braces, None when it has none."""

    name: str
    args: tuple[str, ...]
    line: int
    block: "list[Directive] | None" = field(default=None)

    @property
    def text(self) -> str:
        """As it is shown: a block as its head."""
        return joined((self.name, *self.args)) + (" { … }" if self.block is not None else "")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def directives(text: str, notes: Notes) -> list[Directive]:
    """The outermost directives. What is not closed, or closed twice, is a leftover, and what can be read counts."""
    inside: list[list[Directive]] = [[]]
    heads: list[Directive] = []
    words: list[_Token] = []
    for token in _tokens(text, notes):
        if token.kind != "mark":
            words.append(token)
            continue
        if token.text == "{":
            block: list[Directive] = []
            heads.append(_directive(words, token, block))
            inside[-1].append(heads[-1])
            inside.append(block)
        elif token.text == ";":
            inside[-1] += [_directive(words, token, None)] if words else []
        else:
            _unfinished(words, notes)
            if heads:
                heads.pop()
                inside.pop()
            else:
                notes.leave(token.line, "}", "closes nothing: is a brace missing before it?")
        words = []
    _unfinished(words, notes)
    for head in heads:
        notes.leave(head.line, head.text, "its brace is not closed: what was read of it counts")
    return inside[0]


def _directive(words: list[_Token], end: _Token, block: list[Directive] | None) -> Directive:
    texts = [word.text for word in words] or [""]
    return Directive(texts[0], tuple(texts[1:]), words[0].line if words else end.line, block)


def _unfinished(words: list[_Token], notes: Notes) -> None:
    if words:
        text = joined([word.text for word in words])
        notes.leave(words[0].line, text, "not understood: there is no ; behind it")


def _tokens(text: str, notes: Notes) -> Iterator[_Token]:
    line = 1
    for found in _TOKEN.finditer(text):
        kind, piece = found.lastgroup or "", found[0]
        if kind == "quoted":
            closed = len(piece) > 1 and piece[-1] == piece[0]
            if not closed:
                notes.leave(line, piece, "a quote is not closed")
            yield _Token("word", _ESCAPED.sub(_unescaped, piece[1:-1] if closed else piece[1:]), line)
        elif kind == "word":
            yield _Token("word", _ESCAPED.sub(_unescaped, piece), line)
        elif kind == "mark":
            yield _Token("mark", piece, line)
        line += piece.count("\n")


def _unescaped(escape: re.Match[str]) -> str:
    return _MEANT.get(escape[1], escape[0])
