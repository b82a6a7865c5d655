"""`nodedev serve`."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import click

from nodedev.cli.session import Session

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("serve")
@click.option(
    "--runtime-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the sockets go; /run/nodedev for root, else $XDG_RUNTIME_DIR/nodedev.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where definitions are kept; /var/lib/nodedev for root, else $XDG_STATE_HOME/nodedev.",
)
@click.option("--listen", metavar="HOST:PORT", help="TCP beside the sockets, with mutual TLS only.")
@click.option("--tls-cert", type=_FILE, help="PEM certificate of this service.")
@click.option("--tls-key", type=_FILE, help="PEM key of that certificate.")
@click.option("--tls-ca", type=_FILE, help="PEM certificate of the CA whose clients may call.")
@click.option("--admin", "admins", metavar="NAME", multiple=True, help="A certificate name that may change.")
@click.option("--reader", "readers", metavar="NAME", multiple=True, help="A certificate name that may read.")
@click.pass_obj
def serve(
    session: Session,
    *,
    runtime_dir: Path | None,
    state_dir: Path | None,
    listen: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    admins: tuple[str, ...],
    readers: tuple[str, ...],
) -> None:
    """Run the service, of this host or of a recorded one (--host), until SIGTERM."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from nodedev.server.access import Names  # noqa: PLC0415  start-up cost
    from nodedev.server.serve import TlsPort  # noqa: PLC0415
    from nodedev.server.serve import serve as run  # noqa: PLC0415
    from nodedev.server.sockets import runtime_folder  # noqa: PLC0415
    from nodedev.server.state import state_folder  # noqa: PLC0415

    if session.address:
        raise click.UsageError("serve takes no --connect")
    tls = None
    if listen:
        if not (tls_cert and tls_key and tls_ca and (admins or readers)):
            raise click.UsageError(
                "--listen needs --tls-cert, --tls-key, --tls-ca and at least one --admin or --reader"
            )
        names = Names(frozenset(admins), frozenset(readers))
        tls = TlsPort(listen, tls_cert, tls_key, tls_ca, names)
    elif tls_cert or tls_key or tls_ca or admins or readers:
        raise click.UsageError("without --listen there is nothing to use certificates and their names for")
    folder = runtime_dir or runtime_folder()
    if folder is None:
        raise click.UsageError("there is no XDG_RUNTIME_DIR: say --runtime-dir")
    level = logging.DEBUG if session.debug else logging.INFO
    logging.basicConfig(level=level, format="nodedev: %(levelname)s: %(message)s")
    source, host = session.source()
    # A recorded host has this host's definitions only if asked for.
    state = state_dir or (state_folder() if source.live else None)
    asyncio.run(run(source, host, folder, tls, state))
