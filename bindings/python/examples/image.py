#!/usr/bin/env python3
"""From an image to a running container.

    python3 image.py alpine                 pulls it from its registry, if the store has it not
    python3 image.py ./layout               an OCI layout, or an archive of `docker save`
    python3 image.py alpine ls -l /etc      another command than the image's

Nothing else is needed: no daemon, no other tool. The image goes to the default store, and its
layers are unpacked once. What the container writes vanishes with it. Root is not needed where
user namespaces are allowed.
"""

import sys

import locule


def show(progress: locule.Progress) -> None:
    """One line on the terminal, written over again."""
    blob = (progress.digest or "a layer")[:19]
    line = f"\r{progress.step} {blob}: {progress.done} of {progress.total or '?'} bytes"
    print(line, end="\n" if progress.finished else "", file=sys.stderr, flush=True)


def find(name: str) -> locule.Image:
    """An image of a file or directory, or by its name: from the store, else from its registry."""
    if name.startswith(("/", ".")):
        return locule.Image.load(name, progress=show)
    try:
        return locule.Image.get(name)
    except locule.NotFound:
        return locule.Image.pull(name, progress=show)


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit("usage: image.py NAME|PATH [COMMAND...]")
    with find(sys.argv[1]) as image:
        print("image     ", image.digest, "with", len(image.inspect()["layers"]), "layers")
        done = locule.run(sys.argv[2:] or None, image=image, capture_output=True, text=True)
        print("it said   ", " / ".join(done.stdout.splitlines()))
        print("it ended   with", done.returncode)
    return done.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except locule.LoculeError as error:
        sys.exit(f"image.py: {error.stage or error.code}: {error}")
