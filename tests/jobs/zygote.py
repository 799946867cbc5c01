"""A process that has everything loaded, and forks a child for every command: a killed run costs no new start.

Reads JSON, one command a line: ``{"argv": [...], "log": path}`` is answered with ``{"pid": n}`` at once; so is the same
with ``"call": [function of runner, arguments, settings]``, where there is no command; and ``{"wait": n}`` with
``{"status": n}`` when that child has ended (negative: the signal that ended it). Until it was waited for, its id is its
own, even if it has ended. Run by `test_survival`, which kills the children.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any


def load_all() -> None:
    """Import and make what the children need; FiftyOne only where a database is given."""
    from fiftyone_plugin import cli, pipeline  # noqa: F401
    from fiftyone_plugin.config import TrackingOptions

    pipeline.Backends.load(TrackingOptions(device="cpu"))
    if "FIFTYONE_DATABASE_URI" in os.environ:
        from fiftyone_plugin import labels  # noqa: F401


def run(command: dict[str, Any]) -> int:
    """The child: the command, with its output in a file."""
    from fiftyone_plugin import cli, runner
    from fiftyone_plugin.config import TrackingOptions

    out = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if "argv" in command:
        return cli.main(command["argv"])
    name, arguments, settings = command["call"]
    options = TrackingOptions(device="cpu", **settings.pop("options", {}))
    outcome = getattr(runner, name)(*arguments, options=options, **settings)
    print(json.dumps(outcome.as_dict()), flush=True)
    return 0


def main() -> None:
    warnings.simplefilter("ignore")
    load_all()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], 0)
            print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = run(command)
            finally:
                os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
