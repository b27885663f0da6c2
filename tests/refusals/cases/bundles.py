"""The bundle and the text of config.json."""

import os

from table import START, USER, WAIT, Case, Refused, Works, create, spec_error


def _mkfifo(scene):
    scene.config.unlink()
    os.mkfifo(scene.config)


def _directory(scene):
    scene.config.unlink()
    scene.config.mkdir()


def _link(target):
    def prepare(scene):
        scene.config.unlink()
        scene.config.symlink_to(target)

    return prepare


CASES = [
    Case("a bundle that is not there is not found",
         Refused("not-found", "validate", "ENOENT", None, 'open the bundle "$DIR/nowhere"'),
         do=[create(bundle="$DIR/nowhere")]),
    Case("a bundle that is a file is none",
         Refused("not-found", "validate", "ENOTDIR", None, "$BUNDLE/config.json"),
         do=[create(bundle="$BUNDLE/config.json")]),
    Case("a bundle without a config.json is none",
         Refused("not-found", "validate", "ENOENT", None, "$BUNDLE/config.json"),
         prepare=lambda scene: scene.config.unlink()),
    Case("a config.json that this user may not read is refused",
         Refused("permission", "validate", "EACCES", None, "$BUNDLE/config.json"),
         prepare=lambda scene: scene.config.chmod(0o600), host=USER),
    Case("a bundle that this user may not enter is refused",
         Refused("permission", "validate", "EACCES", None, "$BUNDLE/config.json"),
         prepare=lambda scene: scene.bundle.chmod(0o700), host=USER),
    Case("a config.json that is a directory is refused",
         spec_error(None, "not a regular file"), prepare=_directory),
    Case("a config.json that is a FIFO does not hang the host",
         spec_error(None, "not a regular file"), prepare=_mkfifo),
    Case("a config.json without an end does not exhaust the host",
         spec_error(None, "not a regular file"), prepare=_link("/dev/zero")),
    Case("a config.json that is a link to nowhere is not found",
         Refused("not-found", "validate", "ENOENT", None, "$BUNDLE/config.json"),
         prepare=_link("nowhere")),
    Case("a config.json that is a link to itself is refused",
         Refused("not-found", "validate", "ELOOP", None, "$BUNDLE/config.json"),
         prepare=_link("config.json")),
    Case("a bundle with a name longer than any is not found",
         Refused("not-found", "validate", "ENAMETOOLONG", None, "xxx"),
         do=[create(bundle="$DIR/" + "x" * 5000)]),
    Case("a bundle with a name that is not UTF-8 works", Works(),
         put={"/process/args": ["/bin/true"]}, do=[create(bundle="$DIR/b\udcff"), START, WAIT],
         prepare=lambda scene: os.rename(scene.bundle, f"{scene.directory}/b\udcff")),
    Case("a config.json larger than any is refused before it is read",
         spec_error(None, "larger than"),
         prepare=lambda scene: os.truncate(scene.config, 1 << 40)),

    Case("an empty config.json is refused", spec_error(None, "$BUNDLE/config.json"), config=""),
    Case("a config.json of blanks is refused", spec_error(None, "line"), config=" \n\n  \n"),
    Case("a config.json that breaks off is refused, with the line",
         spec_error(None, "line 9"),
         config=lambda text: "\n".join(text.split("\n")[:9])),
    Case("a config.json with a comma too many is refused, with the line",
         spec_error(None, "line 2"), config='{"ociVersion": "1.2.0",\n}'),
    Case("a config.json that goes on after its end is refused",
         spec_error(None, "trailing"), config=lambda text: text + "}"),
    Case("a config.json that is not UTF-8 is refused",
         spec_error(None, "UTF-8"), config=lambda text: text.replace("inside", "ins\xffide")),
    Case("a config.json in UTF-16 is refused",
         spec_error(None, "UTF-8"),
         config=lambda text: text.encode("utf-16").decode("latin-1")),
    Case("a config.json with a byte order mark is refused",
         spec_error(None, "byte order mark"), config=lambda text: "\xef\xbb\xbf" + text),
    Case("a config.json that is a list is refused", spec_error(None, "object"), config="[]"),
    Case("a config.json that is null is refused", spec_error(None, "object"), config="null"),
    Case("a config.json as deep as the stack is refused",
         spec_error(None, "line 1"), config='{"a":' * 100000),
    Case("a key that is there twice is refused",
         spec_error("/hostname", "twice"),
         config=lambda text: text.replace('"root"', '"hostname": "a", "root"')),
    Case("a key that is there twice far down is refused",
         spec_error("/process/user/uid", "twice"),
         config=lambda text: text.replace('"uid": 0', '"uid": 0, "uid": 1')),
]
