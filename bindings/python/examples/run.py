#!/usr/bin/env python3
"""Runs a container from Python, the whole way round.

    python3 run.py              this machine's files, below a private overlay
    python3 run.py BUNDLE       an OCI bundle: a directory with config.json and its files,
                                among them a shell

Root is not needed where user namespaces are allowed. If only a command is to be run,

    locule.run(["uname", "-a"], capture_output=True, text=True)

does all of this in one call.
"""

import sys

import locule

PROGRAM = ["sh", "-c", 'echo "I am process $$ on $(uname -n)"; tr a-z A-Z']


def main() -> int:
    bundle = sys.argv[1] if len(sys.argv) > 1 else None

    with locule.Runtime() as runtime:
        # Everything is set up, and the program waits. Leaving the block kills and deletes it.
        with runtime.create(
            PROGRAM, bundle=bundle, tty=False, stdin=locule.PIPE, stdout=locule.PIPE, text=True
        ) as container:
            container.start()
            print("container ", container.id, "is", container.state().status)

            # A second process in the same container.
            look = container.run(
                ["sh", "-c", "echo pid 1 is $(cat /proc/1/comm); hostname; wc -l < /proc/mounts"],
                capture_output=True, text=True, check=True,
            )
            first, hostname, mounts = look.stdout.splitlines()
            print("inside    ", first, "; the host name is", hostname, ";", mounts, "mounts")

            # The first process is a Popen in all but name.
            output, _ = container.init.communicate("and this was written outside\n", timeout=10)
            print("it said   ", " / ".join(output.splitlines()))
            print("it ended   with", container.init.returncode)

        print("left over ", [state.id for state in runtime.list() if state.id == container.id])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except locule.LoculeError as error:
        where = f" at {error.pointer} in config.json" if error.pointer else ""
        sys.exit(f"run.py: {error.stage or error.code}{where}: {error}")
