"""The state directory."""

import os

from scene import ORDINARY, read_only, with_files, with_room
from table import START, WAIT, USER, Case, Host, Refused, Works, create, load

TRUE = {"/process/args": ["/bin/true"]}
OPENING = []  # what is refused is opening the runtime


def a_file(scene):
    path = scene.directory / "state"
    path.write_text("")
    return str(path)


def below_a_file(scene):
    return a_file(scene) + "/state"


def link_to_nowhere(scene):
    path = scene.directory / "state"
    path.symlink_to("nowhere/at/all")
    return str(path)


def link_to_itself(scene):
    path = scene.directory / "state"
    path.symlink_to("state")
    return str(path)


def of_root(scene):
    path = scene.directory / "state"
    path.mkdir(mode=0o755)
    return str(path)


def below_roots(scene):
    return of_root(scene) + "/mine"


def closed(scene):
    path = scene.directory / "closed"
    path.mkdir(mode=0o700)
    return str(path / "state")


def long(scene):
    return str(scene.directory / "/".join(["x" * 200] * 10))


def too_long(scene):
    return str(scene.directory / "/".join(["x" * 200] * 30))


def damaged(text):
    """A container's directory whose record is not what it should be."""

    def prepare(scene):
        path = os.path.join(scene.state, scene.id)
        os.mkdir(path)
        with open(path + "/state.json", "w") as record:
            record.write(text)
        with open(path + "/init", "w") as init:
            init.write("1 1\n")

    return prepare


def in_the_place(kind):
    """Something that is no container, where its directory would be."""

    def prepare(scene):
        path = os.path.join(scene.state, scene.id)
        if kind == "file":
            open(path, "w").close()
        elif kind == "link":
            os.symlink("/tmp", path)
        else:
            os.mkdir(path)
            open(path + "/file", "w").close()

    return prepare


CASES = [
    Case("a state directory that is a file is refused",
         Refused("invalid", "state", "ENOTDIR", None, "$STATE", id=False),
         state=a_file, do=OPENING),
    Case("a state directory below a file is refused",
         Refused("invalid", "state", "ENOTDIR", None, "$STATE", id=False),
         state=below_a_file, do=OPENING),
    Case("a state directory that is a link to nowhere is refused",
         Refused("invalid", "state", "ENOENT", None, "$STATE", id=False),
         state=link_to_nowhere, do=OPENING),
    Case("a state directory that is a link to itself is refused",
         Refused("invalid", "state", "ELOOP", None, "$STATE", id=False),
         state=link_to_itself, do=OPENING),
    Case("a state directory with a name longer than any is refused",
         Refused("invalid", "state", "ENAMETOOLONG", None, "xxx", id=False),
         state=too_long, do=OPENING),
    Case("a state directory with a name longer than a socket's works", Works(),
         put=TRUE, state=long, do=[create(), START, WAIT]),
    Case("a state directory that this user may not make is refused",
         Refused("permission", "state", "EACCES", None, "$STATE", id=False),
         state=below_roots, do=OPENING, host=USER),
    Case("a state directory that this user may not reach is refused",
         Refused("permission", "state", "EACCES", None, "$STATE", id=False),
         state=closed, do=OPENING, host=USER),
    Case("a state directory that this user may not write to is refused",
         Refused("permission", "state", "EACCES", None, "$STATE"), state=of_root, host=USER),
    Case("a state directory that nobody may write to is refused",
         Refused("permission", "state", "EROFS", None, "$STATE"), state=read_only),

    # The directory, the record, the keeper's socket, the first process.
    *(Case(f"a disk that takes {files} files is told to be full",
           Refused("resource", "state", "ENOSPC", None, says), state=with_files(files))
      for files, says in enumerate(["$STATE/$ID", "state.json", "the keeper's socket"])),
    Case("a disk with room for nothing in its files is told to be full",
         Refused("resource", "state", "ENOSPC", None, "$STATE"), state=with_room(0)),

    Case("a record that is no JSON is refused",
         Refused("system", "state", None, None, "state.json"), prepare=damaged("{"),
         do=[load("$ID")]),
    Case("a record of another version is refused",
         Refused("unsupported", "state", None, None, "another version"),
         prepare=damaged('{"version": 99}'), do=[load("$ID")]),
    Case("an id whose record is damaged is not given again",
         Refused("system", "state", None, None, "state.json", "by hand"), prepare=damaged("{")),
    Case("a file in the place of a container is none",
         Refused("not-found", "state", "ENOENT", None, "does not exist"),
         prepare=in_the_place("file"),
         do=[load("$ID")]),
    Case("a link in the place of a container is none",
         Refused("not-found", "state", "ENOENT", None, "does not exist"),
         prepare=in_the_place("link"),
         do=[load("$ID")]),
    Case("an id whose place has a file is in use",
         Refused("exists", "state", "EEXIST", None, "exists already"),
         prepare=in_the_place("file")),
]
