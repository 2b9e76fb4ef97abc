"""The command line in real processes to kill, in milliseconds each.

A server that has imported everything forks one child per command. `CommandServer` is the side of the tests. ``python -m
tests.command_server`` is the server; it reads one JSON request a line and answers with two lines, the process id of the
child and its exit status. The child runs ``cvretrieval.cli.main.main`` and nothing else.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Seconds after which a command counts as hanging.
PATIENCE = 120


class Command:
    """A command that runs in a process of its own."""

    def __init__(self, server, pid, output):
        self.pid = pid
        self._server = server
        self._output = output

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def wait(self):
        """Exit status, negative for the signal that ended it."""
        self._server.running = None
        return self._server.answer(self.pid)["status"]

    @property
    def output(self):
        return self._output.read_text(encoding="utf-8", errors="replace")


class CommandServer:
    """Starts commands one after the other.

    Parameters
    ----------
    folder : Path
        For the outputs.
    prefix : sequence of str
        Program that starts the server, to give it a file system or a user of its own.
    """

    def __init__(self, folder, prefix=()):
        self._output = folder / "output.txt"
        self.running = None
        self._answers = queue.Queue()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.command_server", str(folder)],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.answer()

    def _listen(self):
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def answer(self, pid=None):
        """The next line of the server; a command that hangs is ended after two minutes, and says where it was."""
        try:
            facts = self._answers.get(timeout=PATIENCE)
        except queue.Empty:
            if pid is not None:
                os.kill(pid, signal.SIGABRT)
                self._answers.get(timeout=10)
            text = self._output.read_text(encoding="utf-8", errors="replace")
            raise AssertionError(f"no answer in {PATIENCE} s: {text}") from None
        assert facts is not None, "the server is gone"
        return facts

    def start(self, *arguments, **request):
        """Start a command.

        Parameters
        ----------
        shard_images : int
            Images of one commit, to have many of few.
        die_at : int
            The command kills itself before its n-th change of a file.
        trace : path
            File for the changes, syncs and SQL statements in their order.
        limits : dict
            Name of a resource limit → value.
        folder : path
            Folder to run in.
        user : int
            User id to run as.
        shell : bool
            The arguments are those of another program.
        """
        if self.running is not None:  # its test failed before it waited
            with contextlib.suppress(ProcessLookupError):
                self.running.kill()
            self.running.wait()
        self._output.write_text("")
        request = {"arguments": [str(argument) for argument in arguments], "output": str(self._output), **request}
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        self.running = Command(self, self.answer()["pid"], self._output)
        return self.running

    def run(self, *arguments, **request):
        """Run a command to its end; return exit status and output."""
        command = self.start(*arguments, **request)
        return command.wait(), command.output

    def close(self):
        self._process.stdin.close()
        self._process.wait(10)
        self._listener.join(10)
        self._process.stdout.close()


def serve(folder):
    # A child that has become another user may not be allowed to read them.
    import multiprocessing.dummy  # noqa: F401

    import tqdm

    tqdm.tqdm.monitor_interval = 0  # its thread would be forked away
    # Its own lock is one for all forked processes: a child killed while it holds it would stop all others for ever.
    tqdm.tqdm.set_lock(threading.RLock())
    warm_up(folder)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not be forked"
    answer(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run_child(**request)
        answer(pid=pid)
        answer(status=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def answer(**facts):
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def warm_up(folder):
    """Load every module and kernel that the commands need, with photos that pass the whole verification."""
    import numpy as np
    from PIL import Image

    folder = Path(folder, f"warm{os.getpid()}")
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        pixels = rng.integers(0, 256, (14, 14)).astype(np.uint8)
        Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    index = folder.with_suffix(".cvr")
    for arguments in (
        ["index", folder, "--out", index, "--words", 2, "-q", "-j", 1], ["search", index, folder, "-j", 1],
        ["remove", index, "0.png", "-q"], ["compact", index, "-q"], ["info", index, "--check"],
    ):  # fmt: skip
        with open(os.devnull, "w", encoding="utf-8") as sink:
            sys.stdout, sys.stderr = sink, sink
            try:
                run_command([str(argument) for argument in arguments])
            finally:
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def run_child(
    arguments, output, shard_images=None, die_at=None, trace=None, limits=None, user=None, shell=False, folder=None
):
    code = 99
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        faulthandler.enable(descriptor)
        # Shells start what runs in the background with SIGINT ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if shard_images:
            from cvretrieval.retrieval import ingestion

            ingestion._SHARD_IMAGES = shard_images
        if die_at:
            die_before_change(die_at)
        if trace:
            write_trace(trace)
        for name, value in (limits or {}).items():
            import resource

            resource.setrlimit(getattr(resource, name), (value, value))
        if folder is not None:
            os.chdir(folder)
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        code = subprocess.run(arguments).returncode if shell else run_command(arguments)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__} escaped: {error}\n")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_command(arguments):
    from cvretrieval.cli.main import main

    try:
        main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def changes(event, arguments):
    """What an audit event changes in the folder of an index: (kind, path, …), or None."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str) and flags & (os.O_WRONLY | os.O_RDWR) and (".cvr" in path or ".cvretrieval" in path):
            return ("open", path)
    elif event == "os.rename":
        return ("rename", str(arguments[0]), str(arguments[1]))
    elif event in ("os.remove", "os.rmdir", "os.mkdir") or (event == "shutil.rmtree" and os.path.exists(arguments[0])):
        return (event.rpartition(".")[2], str(arguments[0]))
    return None


def die_before_change(n):
    left = n

    def hook(event, arguments):
        nonlocal left
        if changes(event, arguments) is not None:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def write_trace(path):
    """Append every change of a file, every sync and every SQL statement to a file, one JSON list a line."""
    from cvretrieval.retrieval.manifest import Manifest

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(*event):
        os.write(descriptor, json.dumps(event).encode() + b"\n")

    def hook(event, arguments):
        change = changes(event, arguments)
        if change is not None:
            note(*change)

    fsync, connect = os.fsync, Manifest._connect

    def noted_fsync(file):
        note("sync", os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    def noted_connect(self, path):
        connection = connect(self, path)
        connection.set_trace_callback(lambda statement: note("sql", statement))
        return connection

    os.fsync, Manifest._connect = noted_fsync, noted_connect
    sys.addaudithook(hook)


if __name__ == "__main__":
    serve(sys.argv[1])
