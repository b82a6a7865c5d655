"""The program's own options, and its commands by name, each imported when it is called."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from nodedev.cli.session import Session, TlsFiles

# Where each is, and what the list of commands says of it: how its own help begins.
_COMMANDS = {
    "list": ("listing:list_devices", "List devices"),
    "tree": ("tree:tree", "Show how devices hang together"),
    "info": ("info:info", "Tell all about one device"),
    "dumpxml": ("xml:dumpxml", "Print devices as XML, one document after the other"),
    "watch": ("watch:watch", "Print changes as they happen, until interrupted"),
    "pool": ("pool:pool", "Storage pools: devices as volumes"),
    "vol": ("vol:vol", "Volumes of storage pools"),
    "create": ("change:create", "Make the device that XML describes"),
    "destroy": ("change:destroy", "Take a device away and leave its data"),
    "define": ("definitions:define", "Keep XML, so that `start` can make the device"),
    "undefine": ("definitions:undefine", "Forget a definition; the device stays as it is"),
    "start": ("definitions:start", "Make a device that is listed as inactive"),
    "autostart": ("definitions:autostart", "Start a defined device with the service"),
    "validate": ("xml:validate", "Check a device's XML against the grammar"),
    "record": ("record:record", "Record this host for --host"),
    "serve": ("serve:serve", "Run the service, of this host or of a recorded one"),
    "status": ("status:status", "Tell who answers, and which sources of facts could not be read"),
    "completion": ("completion:completion", "Print the completion script of a shell"),
}
# What virsh calls them.
_ALIASES = {
    "nodedev-list": "list",
    "nodedev-dumpxml": "dumpxml",
    "nodedev-info": "info",
    "nodedev-event": "watch",
    "nodedev-create": "create",
    "nodedev-destroy": "destroy",
    "nodedev-define": "define",
    "nodedev-undefine": "undefine",
    "nodedev-start": "start",
    "nodedev-autostart": "autostart",
}
# pool-list is `pool list`; where virsh's verb is another one, it stands here.
_GROUPS = ("pool", "vol")
_VERBS = {"pool-destroy": "stop", "pool-event": "watch"}


class _Commands(click.Group):
    """Commands that cost nothing before they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names that help shows."""
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Lists the commands in the program's help, which click would import all of them for."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, f"{about}.") for name, (_, about) in _COMMANDS.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or of virsh's name."""
        group, dash, verb = cmd_name.partition("-")
        if dash and group in _GROUPS:
            found = self.get_command(ctx, group)
            return (
                found.get_command(ctx, _VERBS.get(cmd_name, verb)) if isinstance(found, click.Group) else None
            )
        known = _COMMANDS.get(_ALIASES.get(cmd_name, cmd_name))
        if known is None:
            return None
        module, _, name = known[0].partition(":")
        command = getattr(import_module(f"nodedev.cli.{module}"), name)
        return command if isinstance(command, click.Command) else None


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:  # noqa: ARG001
    if not wanted or context.resilient_parsing:
        return
    from nodedev.version import own_version  # noqa: PLC0415  start-up cost

    click.echo(f"nodedev {own_version()}")
    context.exit()


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--connect", metavar="ADDRESS", envvar="NODEDEV_CONNECT", help="The service at unix:PATH or HOST:PORT."
)
@click.option(
    "--host",
    "recording",
    metavar="RECORDING",
    type=click.Path(exists=True, path_type=Path),
    help="A recorded host instead: the folder or .tar.gz that `record` writes.",
)
@click.option("--tls-cert", envvar="NODEDEV_TLS_CERT", type=_FILE, help="PEM certificate for HOST:PORT.")
@click.option("--tls-key", envvar="NODEDEV_TLS_KEY", type=_FILE, help="PEM key of that certificate.")
@click.option("--tls-ca", envvar="NODEDEV_TLS_CA", type=_FILE, help="PEM certificate of the service's CA.")
@click.option("--debug", is_flag=True, help="Tell more about errors.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version)
@click.pass_context
def app(
    context: click.Context,
    *,
    connect: str | None,
    recording: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    debug: bool,
) -> None:
    """A host's storage stack as host devices with capability XML.

    Without --connect and --host: the local service if it runs, else this host, read directly.
    """
    # An address from the environment gives way to a recording that is asked for here.
    if recording and connect:
        if context.get_parameter_source("connect") is not click.core.ParameterSource.ENVIRONMENT:
            raise click.UsageError("--connect and --host exclude each other")
        connect = None
    context.obj = Session(connect, recording, TlsFiles(tls_cert, tls_key, tls_ca), debug)
