"""Where what outlasts the service is kept: definitions, and the secrets beside them."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM_FOLDER = Path("/var/lib/nodedev")


def state_folder() -> Path:
    """This user's: /var/lib/nodedev for root, else below $XDG_STATE_HOME or ~/.local/state."""
    if os.geteuid() == 0:
        return SYSTEM_FOLDER
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "nodedev"
