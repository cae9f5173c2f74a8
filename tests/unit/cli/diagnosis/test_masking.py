"""What is taken out of a diagnosis, and what is not."""

import json

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from relayd.cli.diagnosis import masking
from relayd.cli.diagnosis.masking import (
    MASKED_KEYS,
    SHOWN_KEYS,
    Addresses,
    addresses_in,
    in_changes,
    of_config,
    of_log,
    of_state,
    of_text,
    of_unit,
)
from relayd.config import check_table, model
from relayd.config.problems import quote, quote_short


def test_every_key_of_the_model_is_shown_or_masked_on_purpose() -> None:
    tables = [
        each
        for module in (model, check_table)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, BaseModel) and each is not model.Configuration
    ]
    keys = {name for table in tables for name in table.model_fields}
    assert len(keys) > 50
    assert keys <= SHOWN_KEYS | MASKED_KEYS
    assert not SHOWN_KEYS & MASKED_KEYS
    assert {"send", "command", "path", "health_check"} == MASKED_KEYS


WHOLE = """\
# a comment with hunter2
include = "conf.d/*.toml"
[admin]  # another
token = "hunter2hunter2"
[listeners."a.b"]
bind = ["127.0.0.1:80",  # a third
  "[::1]:80"]
targets = ["a:80", { address = "b:80", weight = 3 }]
drain_timeout = "5s"
health_check = { type = "http", path = "/ok?key=abc", host = "x" }
[pools.p]
health_check.type = "exec"
health_check.command = ["/usr/bin/check", "-p", "passw0rd"]
[pools.q.health_check]
type = "tcp"
send = '''
AUTH secret # no comment
'''
expect = { text = "x" }
interval = "5s"
"""
SEEN = """\
#
include = "conf.d/*.toml"
[admin]  #
token = "***"
[listeners."a.b"]
bind = ["127.0.0.1:80",  #
  "[::1]:80"]
targets = ["a:80", { address = "b:80", weight = 3 }]
drain_timeout = "5s"
health_check = { type = "http", path = "/ok?***", host = "x" }
[pools.p]
health_check.type = "exec"
health_check.command = ["/usr/bin/check", "***", "***"]
[pools.q.health_check]
type = "tcp"
send = \"""***

\"""
expect = { text = "***" }
interval = "5s"
"""


def test_a_configuration_is_masked_where_it_may_have_secrets() -> None:
    seen, secrets = of_config(WHOLE)
    assert seen == SEEN
    assert seen.count("\n") == WHOLE.count("\n")
    assert {"hunter2hunter2", "passw0rd", "AUTH secret # no comment"} <= secrets
    tomli.loads(seen)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("token = s3cret", "token = ***"),
        ("sned = 's3cret", 'sned = "***"'),
        ("s3cret", "***"),
        ("a s3cret\nbind = 'x'\n", "*** ***\nbind = 'x'\n"),
        ("bind = [ 'a'\ntoken = 's3cret'", "bind = [ 'a'\ntoken = \"***\""),
        ("x = { bind = 'a', token = 's3cret' }", "x = { bind = 'a', token = \"***\" }"),
        ("x = { token = 's3cret'\nbind = 'a'", "x = { token = \"***\"\n*** = 'a'"),
        ('send = """s3cret', 'send = "***"'),
        ('send = "a\\"s3cret"', 'send = "***"'),
        ("send = { hex = 's3cret' }", 'send = { hex = "***" }'),
        ("[a]\nsend.x = 's3cret'", '[a]\nsend.x = "***"'),
        ("command = []", "command = []"),
        ("command = ['a']", "command = ['a']"),
        ("path = '/a?s3cret", "path = '/a?***'"),
        ("path = '''/a?s3cret'''", "path = '''/a?***'''"),
        ('path = "/a\\u003fs3cret"', 'path = "/a***"'),
        ("path = '/a'", "path = '/a'"),
        ("command = '/bin/check --password s3cret'", "command = '/bin/check ***'"),
        ("command = ['/bin/check --password s3cret', 'x']", "command = ['/bin/check ***', \"***\"]"),
        ('command = "/bin/check\\ts3cret"', 'command = "/bin/check***"'),
        ('command = """\n/bin/check s3cret\n"""\nrise = 2', 'command = """***\n\n"""\nrise = 2'),
        ("command = /bin/check s3cret", "command = *** ***"),
        ("health_check = '/bin/check --password s3cret'", 'health_check = "***"'),
        ("health_check = 'off'", "health_check = 'off'"),
        ('"send" = "s3cret"', '"send" = "***"'),
        ("", ""),
    ],
)
def test_what_is_no_configuration_is_masked_as_well(text: str, seen: str) -> None:
    found, _ = of_config(text)
    assert found == seen
    assert "s3cret" not in found


@example('["\\', "token")  # a string ends with its line, whatever is before the line's end
@given(st.text(alphabet="[]{}=,#\"'\\ \nabind", max_size=60), st.sampled_from(["token", "send", "x.send", "'send'"]))
def test_a_secret_is_masked_whatever_stands_before_it(before: str, key: str) -> None:
    # In the next line, unless that is inside a string, of which it is then a part.
    seen, _ = of_config(f"{before}\n{key} = 'Zs3cretZ'\n")
    lines = seen.splitlines()
    assert "Zs3cretZ" not in seen or "'''" in before or '"""' in before, lines


@given(st.text(max_size=100))
def test_any_text_has_an_end(text: str) -> None:
    seen, _ = of_config(text)
    assert seen.count("\n") == text.count("\n")


def test_secrets_are_found_elsewhere_unless_they_are_short() -> None:
    assert of_text("AUTH hunter22 hunter2 up", {"hunter2", "hunter22", "up"}) == "AUTH *** *** up"
    assert of_text("of abcdefgh, abcdefghijklmn", {"abcdefgh", "ghijklmn"}) == "of ***, ***"
    assert of_text("hunter2", {"hunter2"}) == "***"
    assert of_text("hunter", set()) == "hunter"


@given(st.text("ab", max_size=40), st.sets(st.text("ab", min_size=6, max_size=9), max_size=5))
def test_no_secret_is_left(text: str, secrets: set[str]) -> None:
    seen = of_text(text, secrets)
    assert not [secret for secret in secrets if secret in seen]
    assert seen.count("a") + seen.count("b") == sum(
        not any(
            text.startswith(secret, at)
            for secret in secrets
            for at in range(index - len(secret) + 1, index + 1)
            if at >= 0
        )
        for index in range(len(text))
    )


#: A value as a file has it, and what it stands for.
VALUES = [
    (r'"pass\"word\\1"', 'pass"word\\1'),
    (r'"sch\u00f6n-hunter"', "schön-hunter"),
    ('"schön-hunter"', "schön-hunter"),
    (r"'back\slash-hunter'", r"back\slash-hunter"),
    (r'"AUTH hunter2\r\n"', "AUTH hunter2"),
    (r'"hunter\ttab"', "hunter\ttab"),
]


@pytest.mark.parametrize(("written", "value"), VALUES)
def test_a_secret_is_found_as_others_write_it(written: str, value: str) -> None:
    _, secrets = of_config(f"send = {written}")
    ways = [
        written[1:-1],
        value,
        quote(value)[1:-1],
        repr(value.encode())[2:-1],
        *(
            json.dumps(one, ensure_ascii=ascii_only)
            for one in (value, quote(value), repr(value.encode()))
            for ascii_only in (True, False)
        ),
    ]
    for way in ways:
        assert "hunter" not in of_text(f"before {way} after", secrets), way
        assert "word" not in of_text(f"before {way} after", secrets), way


def test_the_beginning_of_a_long_secret_is_found_where_a_message_quotes_it() -> None:
    value = "hunter2-" * 20
    for key in ("token", "command", "path"):
        text = f"/x?{value}" if key == "path" else f"/x {value}" if key == "command" else value
        _, secrets = of_config(f"{key} = '{text}'")
        assert "hunter2" not in of_text(quote_short(text), secrets)


def test_bytes_and_what_follows_an_option_are_found() -> None:
    _, secrets = of_config("send = { hex = '68 756E 74657232' }\ncommand = ['/x', '--password=s3cret22']\n")
    assert of_text("hunter2 68756e74657232 s3cret22", secrets) == "*** *** ***"
    assert of_config("send = { hex = 'hunter22' }")[1] == {"hunter22"}


def test_of_a_program_with_arguments_the_arguments_are_found() -> None:
    _, secrets = of_config('command = "/usr/bin/check --password hunter22"')
    help_line = 'help: write ["/usr/bin/check --password hunter22"]'
    assert of_text(help_line, secrets) == 'help: write ["/usr/bin/check***"]'
    assert of_text("usage: check [--password hunter22]", secrets) == "usage: check [***]"
    assert of_text("hunter22", secrets) == "***"


def test_a_comment_is_found_as_a_whole_and_what_it_has_of_values() -> None:
    _, secrets = of_config("bind = 'x'  # the password is hunter22\n# token = 's3cret22'\n# listeners\n#a#b#c#d\n")
    assert of_text("    bind = 'x'  # the password is hunter22", secrets) == "    bind = 'x'  ***"
    assert of_text("s3cret22 of listeners", secrets) == "*** of listeners"


def test_a_comment_of_many_comments_has_an_end() -> None:
    assert of_config("# a" * 50_000)[0] == "#"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("Environment=TOKEN=abc", "Environment=***"),
        ('Environment="A=b" "RELAYD_ADMIN=unix:/x"', "Environment=***"),
        ("Environment=RELAYD_ADMIN=unix:/x", "Environment=RELAYD_ADMIN=unix:/x"),
        ("SetCredential=a:b", "SetCredential=***"),
        ("Environment=A=b \\\n  C=d\nUser=x", "Environment=***\nUser=x"),
        ("EnvironmentFile=/x", "EnvironmentFile=/x"),
        ('Environment="A=1" \\\n# c\n  ; d\n "PASSWORD=secret"\nUser=x', "Environment=***\nUser=x"),
        ('Environment="A=1" \\\n# c \\\n "PASSWORD=secret"\nUser=x', "Environment=***\nUser=x"),
        ('Environment="A=1" \\ \t\n "PASSWORD=secret"\nUser=x', "Environment=***\nUser=x"),
        ("Environment=A=1 \\\n# PASSWORD=secret", "Environment=***"),
        ("Environment=A=1\\\\\nUser=x", "Environment=***\nUser=x"),
        ("# Environment=PASSWORD=secret\n# /etc/x", "# Environment=***\n# /etc/x"),
    ],
)
def test_a_unit(line: str, seen: str) -> None:
    assert of_unit(line) == seen


LOG = """\
2026-11-28T17:42:00.571Z web 192.0.2.7:39552 -> 10.0.0.11:80 normal -- id=8f76d9-0-1
2026-11-28T17:42:01Z web [2001:db8::7]:39552 -> [2001:db8::11]:80 normal
{"client":"192.0.2.8","client_port":1,"local":"127.0.0.1:80"} 192.0.2.7 1.2.3.4.5 0.0.0.0 999.0.0.1 v1.2.3
"""
LOG_SEEN = """\
2026-11-28T17:42:00.571Z web address-1:39552 -> 10.0.0.11:80 normal -- id=8f76d9-0-1
2026-11-28T17:42:01Z web [address-2]:39552 -> [2001:db8::11]:80 normal
{"client":"address-3","client_port":1,"local":"127.0.0.1:80"} address-1 1.2.3.4.5 0.0.0.0 999.0.0.1 v1.2.3
"""


def test_addresses_of_others_get_names() -> None:
    config = 'targets = ["10.0.0.11:80", "[2001:DB8::0:11]:80"]'
    known = set(addresses_in(config))
    assert known == {"10.0.0.11", "2001:DB8::0:11"}
    assert Addresses(known).of_text(LOG) == LOG_SEEN


@given(st.ip_addresses().filter(lambda one: not one.is_loopback and not one.is_unspecified))
def test_every_address_is_found(address: object) -> None:
    shown = f"[{address}]:80" if ":" in str(address) else f"{address}:80"
    for text in (f'"{address}"', f" {shown} ", f"client={shown},", f"{address}"):
        assert str(address) not in Addresses(()).of_text(text)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("2001:db8::5: no route", "address-1: no route"),
        ("2001:db8::5:no route", "address-1:no route"),
        ("2001:db8::: no route", "address-1: no route"),
        ("2001:db8:: no route", "address-1 no route"),
        ("to 2001:db8::5.", "to address-1."),
        ("192.0.2.7: 192.0.2.7.", "address-1: address-1."),
        ("::1: ::: 12:34:56: a:b:c", "::1: ::: 12:34:56: a:b:c"),
    ],
)
def test_an_address_ends_where_the_sentence_goes_on(text: str, seen: str) -> None:
    assert Addresses(()).of_text(text) == seen


HEAD = "2026-11-28T17:42:00+0000 relay1 relayd[7]: "
OTHER = "2026-11-28T17:42:00+0000 relay1 relayd[8]: "
BELOW = " " * len(HEAD)
ERROR = "/etc/relay.toml:7:1: pools.p.tok: unknown key"
JOURNALS = {
    "an entry of more lines": (
        [f"{HEAD}refused, nothing has changed: {ERROR}", f"{BELOW}    tok = 's3cret'", f"{BELOW}    ^", f"{HEAD}up"],
        [f"{HEAD}refused, nothing has changed: {ERROR}", f"{BELOW}    ***", f"{BELOW}    ***", f"{HEAD}up"],
    ),
    "lines of text, and others between": (
        [f"{HEAD}{ERROR}", f"{OTHER}up", f"{HEAD}    tok = 's3cret'", f"{HEAD}    ^", f"{OTHER}    a trace"],
        [f"{HEAD}{ERROR}", f"{OTHER}up", f"{HEAD}    ***", f"{HEAD}    ***", f"{OTHER}    a trace"],
    ),
    "a traceback": (
        [f"{HEAD}a bug in relayd: KeyError", f"{BELOW}Traceback", f'{BELOW}  File "x"', "", f"{HEAD}up"],
        [f"{HEAD}a bug in relayd: KeyError", f"{BELOW}Traceback", f'{BELOW}  File "x"', "", f"{HEAD}up"],
    ),
    "a beginning that is cut off": (
        [f"{HEAD}    tok = 's3cret'", f"{HEAD}up", f"{HEAD}    a trace"],
        [f"{HEAD}    ***", f"{HEAD}up", f"{HEAD}    a trace"],
    ),
    "JSON": (
        [HEAD + json.dumps({"message": f'refused, nothing has changed: {ERROR}\n    tok = "s3cret", "s3"}}\n    ^'})],
        [HEAD + json.dumps({"message": f"refused, nothing has changed: {ERROR}\n    ***"})],
    ),
    "a value in an error": (
        [f'{HEAD}/r.toml:7:1: pools.p.health_check.command[0]: "x s3cret" is not "s3cret"', f"{HEAD}up"],
        [f'{HEAD}/r.toml:7:1: pools.p.health_check.command[0]: "***"', f"{HEAD}up"],
    ),
    "a value in an error, in JSON": (
        [HEAD + json.dumps({"message": '/r:7:1: "a b".health_check.path: "x \\" s3cret" is no path'})],
        [HEAD + json.dumps({"message": '/r:7:1: "a b".health_check.path: "***" is no path'})],
    ),
    "a check that has changed": (
        [f'{HEAD}~ listener web: health_check {{ send = "s3cret" }} -> "off"', f"{HEAD}~ listener web: rise 1 -> 2"],
        [f"{HEAD}~ listener web: health_check ***", f"{HEAD}~ listener web: rise 1 -> 2"],
    ),
}


@pytest.mark.parametrize("name", JOURNALS)
def test_a_log_has_no_lines_of_a_configuration(name: str) -> None:
    lines, seen = JOURNALS[name]
    assert of_log("\n".join([*lines, ""])).splitlines() == seen


def test_what_a_check_had_before_is_found_in_the_log() -> None:
    text = '~ listener web: health_check { send = "hunter22" } -> { command = ["/x", "pass\\"word"] }'
    for log in (f"{HEAD}{text}\n", HEAD + json.dumps({"message": text, "listener": "web"})):
        secrets = in_changes(f"{HEAD}up\n{log}")
        assert {"hunter22", 'pass"word'} <= secrets
        assert "listener" not in secrets
    assert not in_changes(f'{HEAD}~ listener web: health_check "off" -> not set')


def test_a_state_has_no_error_of_a_reload() -> None:
    text = "StatusText=1 listener; the last reload was refused: f:1:1: x: s3cret\nMainPID=1\n"
    assert of_state(text) == "StatusText=1 listener; the last reload was refused: ***\nMainPID=1\n"


def test_the_mask_is_what_documents_say() -> None:
    assert masking.MASK == "***"
