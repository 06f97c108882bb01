"""A Python that has the engine's libraries loaded, so that each test's engine starts at once.

A server imports them once. A small program, made by `make_program`, stands for the Python of a user's own: it hands
its arguments, environment and standard streams to the server, which forks a process that runs them. For Linux.

    python warm_python.py SOCKET
"""

import importlib
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

LIBRARIES = (
    "timm",
    "transformers",
    "CPS4Core.inference.worker",
    "CPS4Core.training.pretrain",
    "CPS4Core.training.train",
)
"""What the engine takes long to import. Its command line is not among them: it runs as the main module."""
MOST_BYTES = 2**20

PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
code = server.recv(16)
server.recv(1)  # until it has ended
if not code:  # the process was killed
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(code))
"""


def make_program(path: Path, address: str) -> None:
    """Writes the program that has its arguments run by the server at a Unix socket."""
    path.write_text(PROGRAM.format(python=sys.executable, address=address), encoding="utf-8")
    path.chmod(0o755)


def serve(address: str) -> None:
    """Runs what is asked, each in a process of its own, until it is killed."""
    for name in LIBRARIES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    while True:
        client, _ = server.accept()
        request, streams, *_ = socket.recv_fds(client, MOST_BYTES, 3)
        if request and os.fork() == 0:
            server.close()
            _run(json.loads(request), streams, client)
        for stream in streams:
            os.close(stream)
        client.close()


def _run(request: dict[str, Any], streams: list[int], client: socket.socket) -> None:
    """Runs `python ARGUMENTS` with the streams of the client and tells it the exit code."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = request["arguments"]
    code = 0
    try:
        sys.path.insert(0, str(Path(sys.argv[0]).parent))
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    with suppress(OSError):  # nobody listens where the client was killed
        sys.stdout.flush()
        sys.stderr.flush()
        client.send(str(code).encode())
    os._exit(code)


if __name__ == "__main__":
    del sys.path[0]  # this folder
    serve(sys.argv[1])
