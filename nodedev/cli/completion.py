"""`nodedev completion`, and what completes a device's name."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from nodedev.cli.session import Session, TlsFiles
from nodedev.errors import NodedevError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell, as in: eval "$(nodedev completion bash)"."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    root = context.find_root()
    click.echo(found(root.command, {}, "nodedev", "_NODEDEV_COMPLETE").source())


def complete_device(
    context: click.Context,
    parameter: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """The devices whose names begin so; none where no host can be asked."""
    options = context.find_root().params
    session = Session(
        options.get("connect"), options.get("recording"), TlsFiles(None, None, None), debug=False
    )
    try:
        with session.client() as client:
            names = [device.name for device in client.list_devices().devices]
    except (NodedevError, OSError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
