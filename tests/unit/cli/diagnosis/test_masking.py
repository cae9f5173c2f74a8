"""What is taken out of a diagnosis, and what is not."""

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from relayd.cli.diagnosis import masking
from relayd.cli.diagnosis.masking import MASKED_KEYS, SHOWN_KEYS, Addresses, addresses_in, of_config, of_text, of_unit
from relayd.config import check_table, model


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
    assert {"send", "command", "path"} == MASKED_KEYS


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
        ("path = '/a?s3cret", "path = '/a?***t"),
        ('"send" = "s3cret"', '"send" = "***"'),
        ("", ""),
    ],
)
def test_what_is_no_configuration_is_masked_as_well(text: str, seen: str) -> None:
    found, _ = of_config(text)
    assert found == seen
    assert "s3cret" not in found


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


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("Environment=TOKEN=abc", "Environment=***"),
        ('Environment="A=b" "RELAYD_ADMIN=unix:/x"', "Environment=***"),
        ("Environment=RELAYD_ADMIN=unix:/x", "Environment=RELAYD_ADMIN=unix:/x"),
        ("SetCredential=a:b", "SetCredential=***"),
        ("Environment=A=b \\\n  C=d\nUser=x", "Environment=***\nUser=x"),
        ("EnvironmentFile=/x", "EnvironmentFile=/x"),
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


def test_the_mask_is_what_documents_say() -> None:
    assert masking.MASK == "***"
