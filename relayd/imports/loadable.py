"""What the loader of relayd refuses of an import, taken out of it and told with its line. Pure, but for the loader."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from relayd.config.problems import Problem, key_text
from relayd.imports.draft import Draft, Imported, Leftover, Place, Setting, Value
from relayd.imports.pooling import pools
from relayd.imports.rendering import to_toml

#: Rounds in which single addresses and keys are taken out. One error can hide another, but not often; after these,
#: listeners are taken out as a whole, so that there is an end.
FINE_ROUNDS = 4

_NOT_TEXT = "is not UTF-8, and a relay.toml can hold nothing else"
_NO_BACKUP_ANY_MORE = "carried over as no backup: every other target is left out"


def loadable(imported: Imported, file: str, problems_of: Callable[[str], Sequence[Problem]]) -> Imported:
    """The part of `imported` that loads. `problems_of` tells what is wrong with the text of a relay.toml."""
    imported = _writable(imported)
    rounds = 0
    while imported.drafts:
        problems = problems_of(to_toml(imported, file))
        if not problems:
            break
        less = _without(imported, problems, fine=rounds < FINE_ROUNDS)
        if less == imported:  # about the file as a whole
            left = Leftover(0, "the import as a whole", problems[0].message)
            return replace(imported, drafts=(), leftovers=(left, *imported.leftovers))
        imported = less
        rounds += 1
    return imported


def _writable(imported: Imported) -> Imported:
    """`imported` without addresses and values that are not UTF-8: TOML cannot hold them, and the loader would refuse
    the whole file for one.
    """
    leftovers = list(imported.leftovers)
    drafts: list[Draft] = []
    for draft in imported.drafts:
        places = [place for place in (*draft.binds, *draft.targets) if not _is_text(place.text)]
        odd = {key: one for key, one in draft.settings.items() if not _has_text(one.value)}
        leftovers += [Leftover(place.line, place.text, _NOT_TEXT) for place in places]
        leftovers += [Leftover(one.line, f"{key} = {one.value}", _NOT_TEXT) for key, one in odd.items()]
        less = replace(
            draft,
            binds=tuple(place for place in draft.binds if place not in places),
            targets=_not_backups_alone([place for place in draft.targets if place not in places], leftovers),
            settings=_without_keys(draft, set(odd)),
        )
        drafts += [less] if less.binds and less.targets else []
    return replace(imported, drafts=tuple(drafts), leftovers=tuple(sorted(leftovers, key=lambda one: one.line)))


def _not_backups_alone(targets: Sequence[Place], leftovers: list[Leftover]) -> tuple[Place, ...]:
    """`targets`. Where only backups are left, which the loader refuses, they are none any more."""
    if not all(place.backup for place in targets):
        return tuple(targets)
    leftovers += [Leftover(place.line, f"backup {place.text}", _NO_BACKUP_ANY_MORE) for place in targets]
    return tuple(replace(place, backup=False) for place in targets)


def _without_keys(draft: Draft, keys: set[str]) -> dict[str, Setting]:
    """The settings of `draft` without `keys`, and without what can do nothing then."""
    needless = {"fail_open"} if "health_check" in keys else set[str]()
    return {key: one for key, one in draft.settings.items() if key not in keys | needless}


def _has_text(value: Value) -> bool:
    """True where all strings in it are text."""
    if isinstance(value, Mapping):
        return all(map(_has_text, value.values()))
    if isinstance(value, tuple):
        return all(map(_has_text, value))
    return not isinstance(value, str) or _is_text(value)


def _is_text(text: str) -> bool:
    """False for stray surrogates, which stand for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without(imported: Imported, problems: Sequence[Problem], *, fine: bool) -> Imported:
    """`imported` without what `problems` are about."""
    leftovers: list[Leftover] = []
    of: dict[str, list[tuple[Problem, str]]] = {}
    names = {key_text(("listeners", draft.name)): [draft.name] for draft in imported.drafts}
    for pool in pools(imported.drafts):
        names[key_text(("pools", pool.name))] = [draft.name for draft in pool.drafts]
    daemon, shared = dict(imported.daemon), set[str]()
    for problem in problems:
        table, _, key = problem.key.partition(".")
        if table == "daemon" and key in daemon:
            setting = daemon.pop(key)
            leftovers.append(Leftover(setting.line, f"{key} = {setting.value}", _reason(problem)))
        elif table == "defaults":
            shared.add(key.partition(".")[0])
            leftovers += _of_all(imported, key.partition(".")[0], problem)
        else:
            head = next((head for head in _heads(problem.key) if head in names), "")
            for name in names.get(head, ()):
                of.setdefault(name, []).append((problem, head))
    drafts: list[Draft] = []
    for draft in imported.drafts:
        less: Draft | None = replace(draft, settings=_without_keys(draft, shared))
        for problem, head in of.get(draft.name, ()):
            less = less and _less(less, draft, problem, head, leftovers, fine=fine)
        if less and less.binds and less.targets:
            drafts.append(replace(less, targets=_not_backups_alone(less.targets, leftovers)))
    told = sorted((*imported.leftovers, *dict.fromkeys(leftovers)), key=lambda one: one.line)
    return replace(imported, drafts=tuple(drafts), leftovers=tuple(told), daemon=daemon)


def _less(
    less: Draft, draft: Draft, problem: Problem, head: str, leftovers: list[Leftover], *, fine: bool
) -> Draft | None:
    """`less` without what `problem` says of `draft`, whose table, or that of its pool, is `head`; None: without the
    listener.
    """
    rest = problem.key[len(head) :].lstrip(".")
    key, _, index = rest.partition(".")[0].partition("[")
    number = int(index.partition("]")[0]) if index else 0
    if fine and key in ("bind", "targets"):
        places = draft.binds if key == "bind" else draft.targets
        if number < len(places) and (index or len(places) == 1):
            place = places[number]
            leftovers.append(Leftover(place.line, f"{key.removesuffix('s')} {place.text}", _reason(problem)))
            if key == "bind":
                return replace(less, binds=tuple(one for one in less.binds if one is not place))
            return replace(less, targets=tuple(one for one in less.targets if one is not place))
    if fine and key in draft.settings:
        setting = draft.settings[key]
        leftovers.append(Leftover(setting.line, f"{key} = {setting.value}", _reason(problem)))
        return replace(less, settings=_without_keys(less, {key}))
    leftovers.append(Leftover(draft.line, draft.title, _reason(problem)))
    return None


def _of_all(imported: Imported, key: str, problem: Problem) -> list[Leftover]:
    """What is to be said of a key that all listeners share."""
    found = [draft.settings[key] for draft in imported.drafts if key in draft.settings]
    return [Leftover(one.line, f"{key} = {one.value}", _reason(problem)) for one in found[:1]]


def _heads(key: str) -> list[str]:
    """What `key` may begin with as the name of a listener: with one dot more each, but no more than a name can have."""
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(min(len(parts), 68), 1, -1)]


def _reason(problem: Problem) -> str:
    hint = problem.suggestion.removeprefix("help: ")
    return f"{problem.message}; {hint}" if hint else problem.message
