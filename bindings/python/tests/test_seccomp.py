"""Who asks for it gets the listener of a container's seccomp filter."""

from __future__ import annotations

import json
import os
import socket
import threading

import locule


class Listening:
    """Takes the listener that comes over a socket, and answers nothing."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.ours = ours
        self.state: dict = {}
        self.thread = threading.Thread(target=self._receive)
        self.thread.start()

    def _receive(self) -> None:
        text, descriptors, _, _ = socket.recv_fds(self.ours, 65536, 4)
        self.state = json.loads(text)
        assert len(descriptors) == 1
        # Without a listener the kernel has no such call.
        os.close(descriptors[0])

    def done(self) -> dict:
        self.thread.join(10)
        self.ours.close()
        self.theirs.close()
        return self.state


def test_the_listener_comes_over_a_socket_of_the_callers(runtime: locule.Runtime) -> None:
    script = ["sh", "-c", "mkdir /tmp/x 2>&1"]
    spec = locule.default_spec(script)
    spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    listening = Listening()
    with runtime.create(
        spec=spec, overlay=True, stdout=locule.PIPE, text=True,
        seccomp_listener=listening.theirs.fileno(),
    ) as container:
        container.start()
        stdout, _ = container.init.communicate(timeout=10)
        state = listening.done()
        assert "Function not implemented" in stdout
        assert (state["pid"], state["fds"]) == (container.pid, ["seccompFd"])
        assert state["state"]["status"] == "creating"
