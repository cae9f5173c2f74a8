"""Commands that look at a running daemon, and end what should not go on. `verbs` has them all."""

import typer

from relayd.cli.asking import asking, find, of_another_version
from relayd.cli.options import AdminAddress, AsJson, DaemonsFile, TokenFile
from relayd.cli.output import emit, json_text

verbs = typer.Typer()


@verbs.command()
def status(
    as_json: AsJson = False, config_file: DaemonsFile = None, admin: AdminAddress = None, token_file: TokenFile = None
) -> None:
    """Print what the running daemon does: its file, its last reload, workers, and what is open on each listener."""
    from relayd.cli import client
    from relayd.cli import status as report

    with asking():
        found = client.ask(find(admin, config_file, token_file), "GET", "/v1/status")
        if not as_json:
            try:
                text = report.text(found)
            except (KeyError, TypeError, ValueError) as error:
                raise client.Unreachable(of_another_version(error)) from None
    emit(json_text(found) if as_json else text)
