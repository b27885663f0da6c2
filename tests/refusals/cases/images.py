"""Images: what is wrong with them, with calls for them, and with containers made from them."""

import gzip
import hashlib
import io
import json
import os
import tarfile

from table import START, WAIT, Case, Refused, create, image, store

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
AMD64 = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _tar(*entries):
    """Entries are a name and text, or a TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info, text = (entry, b"") if isinstance(entry, tarfile.TarInfo) else entry
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return out.getvalue()


def _special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


PLAIN = _tar(("file", b"text\n"))


class Layout:
    """An OCI layout, with wishes for what is to be wrong in it."""

    def __init__(self, scene, name="layout"):
        self.path = scene.directory / name
        (self.path / "blobs/sha256").mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests = []

    def blob(self, data):
        digest = _digest(data)
        self.place(digest).write_bytes(data)
        return digest

    def place(self, digest):
        return self.path / "blobs" / digest.replace(":", "/")

    def add(self, name, tar=PLAIN, config=None, layer=None, kind=CONFIG, diff_id=None):
        """An image; the dictionaries go over what is right."""
        packed = gzip.compress(tar, mtime=0)
        document = {
            "architecture": AMD64, "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id or _digest(tar)]},
            **(config or {}),
        }
        text = json.dumps(document).encode()
        self.layer, self.config = self.blob(packed), self.blob(text)
        whole = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": kind, "digest": self.config, "size": len(text)},
            "layers": [{
                "mediaType": LAYER, "digest": self.layer, "size": len(packed), **(layer or {}),
            }],
        }).encode()
        self.manifest = self.blob(whole)
        self.manifests.append({
            "mediaType": MANIFEST, "digest": self.manifest, "size": len(whole),
            "annotations": {"org.opencontainers.image.ref.name": name},
        })
        self.index()
        return self

    def index(self):
        document = {"schemaVersion": 2, "manifests": self.manifests}
        (self.path / "index.json").write_text(json.dumps(document))


def layout(**wishes):
    return lambda scene: Layout(scene).add("localhost/one:1", **wishes)


def spoiled(what):
    """A layout of which a file is another one than it says."""

    def prepare(scene):
        made = Layout(scene).add("localhost/one:1")
        what(made)

    return prepare


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _tree(scene):
    """A root filesystem that an image is imported from, which can run."""
    tree = scene.directory / "tree"
    tree.mkdir()
    os.symlink(scene.rootfs / "bin", tree / "unused")
    (tree / "bin").mkdir()
    (tree / "bin/sh").write_bytes((scene.rootfs / "bin/busybox").read_bytes())
    (tree / "bin/sh").chmod(0o755)
    (tree / "etc").mkdir()
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")


LOAD = [store(), image("load", path="$DIR/layout")]
IMPORT = [store(), image("import", path="$DIR/tree", name="localhost/tree:1",
                         config='{"Cmd": ["/bin/sh", "-c", "exit 0"]}')]


def case(name, expect, do, **more):
    return Case(name, expect, do=do, only=["c"], **more)


def refused(category, says="", errno=None, stage="image", **more):
    return Refused(category, stage, errno, None, says, id=more.pop("id", False), **more)


def wrong_image(name, says, prepare, do=LOAD, category="spec", **more):
    return case(name, refused(category, says, **more), do, prepare=prepare)


def wrong_call(name, says, call, category="invalid", **more):
    return case(name, refused(category, says, stage="arguments", **more), [store(), call])


def wrong_container(name, expect, *steps, still=None, **words):
    do = [*IMPORT, create(image=1, **words), *steps]
    return case(name, expect, do, prepare=_tree, still=still)


CASES = [
    # --- The store ------------------------------------------------------------------------------
    case("a store that is a file is refused", refused("invalid", "$BUNDLE", "ENOTDIR"),
         [store("$BUNDLE/config.json")]),
    case("a store that others can write to is refused",
         refused("permission", "$DIR/images", advises="store of your own"), [store()],
         prepare=lambda scene: (scene.directory / "images").mkdir() or
         (scene.directory / "images").chmod(0o777)),
    case("a read-only store that is not there is not made",
         refused("not-found", "$DIR/images", "ENOENT"), [store(read_only=1)]),
    case("a read-only store takes nothing",
         refused("state", "read-only", "EROFS"),
         [store(), store(read_only=1), image("import", path="$DIR/tree")], prepare=_tree),

    # --- Names ----------------------------------------------------------------------------------
    case("an image that is not in the store is not found", refused("not-found", "nobody"),
         [store(), image("get", name="nobody")]),
    case("a name that is none is refused", refused("invalid", '"No Name"'),
         [store(), image("get", name="No Name")]),
    case("a name that is none is not given", refused("invalid", '"UPPER"'),
         [*LOAD, image("tag", name="UPPER")], prepare=layout()),
    case("a name that nobody has cannot be removed", refused("not-found", "nobody"),
         [store(), image("remove", name="nobody")]),

    # --- Options --------------------------------------------------------------------------------
    wrong_call("an option of another call is refused", "`opts.created`",
               image("load", path="/", created="2026-01-01T00:00:00Z")),
    case("an owner that is none is refused",
         refused("unsupported", "`opts.owner` 7", stage="arguments"),
         [*LOAD, image("unpack", path="$DIR/out", owner=7)], prepare=layout()),
    wrong_call("a compression that is none is refused", "`opts.compression` 9",
               image("import", path="/", compression=9), category="unsupported"),
    wrong_call("a change of the configuration that is no JSON is refused", "`opts.config_json`",
               image("import", path="/", config="{")),
    wrong_call("a user without a password is refused", "`opts.username`",
               image("pull", path="alpine", username="me")),
    case("a change of the configuration that is no object is refused",
         refused("invalid", "expected an object", stage="arguments"),
         [store(), image("import", path="$DIR/tree", config="[]")], prepare=_tree),
    case("a date that is none is refused", refused("invalid", "yesterday", stage="arguments"),
         [store(), image("import", path="$DIR/tree", created="yesterday")], prepare=_tree),
    case("a platform that is none is refused", refused("invalid", '"vax"'),
         [store(), image("load", path="$DIR/layout", platform="vax")], prepare=layout()),
    case("an image of another platform than was asked for is not found",
         refused("not-found", "only for linux/"),
         [store(), image("load", path="$DIR/layout", platform="plan9/vax")], prepare=layout()),
    case("an import that was cancelled before it began is refused",
         refused("cancelled", "cancelled"),
         [store(), image("import", path="$DIR/tree", cancel=1)], prepare=_tree),

    # --- Layouts --------------------------------------------------------------------------------
    case("a layout that is not there is not found", refused("not-found", "$DIR/layout", "ENOENT"),
         LOAD),
    case("a directory that is no layout is refused", refused("spec", "$DIR/tree"),
         [store(), image("load", path="$DIR/tree")], prepare=_tree),
    wrong_image("a layout without images has none", "no image in it",
                lambda scene: Layout(scene).index(), category="not-found"),
    wrong_image("of several images one has to be chosen", "localhost/two:2",
                lambda scene: Layout(scene).add("localhost/one:1").add(
                    "localhost/two:2", tar=_tar(("other", b""))),
                category="invalid", advises="which"),
    wrong_image("an image that is not in the layout is not found", "localhost/three:3",
                layout(), [store(), image("load", path="$DIR/layout", **{"from": "localhost/three:3"})],
                category="not-found"),
    wrong_image("a layout of a later version is refused", "9.0.0",
                spoiled(lambda made: (made.path / "oci-layout").write_text(
                    '{"imageLayoutVersion": "9.0.0"}')), category="unsupported"),
    wrong_image("an index that is no JSON is refused", "index.json",
                spoiled(lambda made: (made.path / "index.json").write_text("{"))),
    wrong_image("a manifest with another digest is refused", "blob sha256:",
                spoiled(lambda made: _flip(made.place(made.manifest)))),
    wrong_image("a configuration with another digest is refused", "blob sha256:",
                spoiled(lambda made: _flip(made.place(made.config)))),
    wrong_image("a layer with another digest is refused", "blob sha256:",
                spoiled(lambda made: _flip(made.place(made.layer)))),
    wrong_image("a layer that is shorter than it should be is refused", "blob sha256:",
                spoiled(lambda made: os.truncate(made.place(made.layer), 20))),
    wrong_image("a layer that is not there is not found", "blob sha256:",
                spoiled(lambda made: made.place(made.layer).unlink()), category="not-found"),
    wrong_image("a layer of an unknown kind is refused", "layers[0]",
                layout(layer={"mediaType": "application/x-rain"}), category="unsupported"),
    wrong_image("more layers than the configuration knows are refused", "diff_ids",
                layout(config={"rootfs": {"type": "layers", "diff_ids": []}})),
    wrong_image("an artifact that is no container image is refused", "no container image",
                layout(kind="application/x-rain"), category="unsupported"),

    # --- Layers ---------------------------------------------------------------------------------
    *(wrong_image(f"a layer with {what} is refused when it is unpacked", says,
                  layout(tar=_tar(*entries)), [*LOAD, image("unpack", path="$DIR/out")])
      for what, says, entries in [
          ("a file outside", "../evil", [("../evil", b"")]),
          ("a file above", "../../evil", [("a/../../../evil", b"")]),
          ("a hard link to the outside", "passwd",
           [_special("link", tarfile.LNKTYPE, "../../../../etc/passwd")]),
          ("a file below a file", "file", [("file", b""), ("file/below", b"")]),
      ]),
    wrong_image("a layer with another uncompressed digest is refused", "sha256:",
                layout(diff_id=_digest(b"other")), [*LOAD, image("unpack", path="$DIR/out")]),
    wrong_image("a layer that is no tar is refused", "", layout(tar=b"rain" * 1000),
                [*LOAD, image("unpack", path="$DIR/out")]),
    case("a directory that is not empty takes no image", refused("exists", "$DIR/bundle"),
         [*LOAD, image("unpack", path="$BUNDLE")], prepare=layout()),
    case("more entries than are allowed are refused", refused("resource", "more than 1 entries"),
         [*LOAD, image("unpack", path="$DIR/out", max_entries=1)],
         prepare=layout(tar=_tar(("a", b""), ("b", b"")))),
    case("more bytes than are allowed are refused", refused("resource", "1000 bytes", advises="limit"),
         [*LOAD, image("unpack", path="$DIR/out", max_bytes=1000)],
         prepare=layout(tar=_tar(("a", b"x" * 5000)))),
    case("an image is not unpacked ahead for wrong overrides", refused("invalid", "`user`"),
         [*LOAD, image("prepare", config='{"user": 1}')], prepare=layout()),

    # --- Other places ---------------------------------------------------------------------------
    case("an image is not saved among other files", refused("invalid", "$BUNDLE"),
         [*LOAD, image("save", path="$BUNDLE")], prepare=layout()),
    case("an image is not saved where there is no directory",
         refused("not-found", "$DIR/nowhere", "ENOENT"),
         [*LOAD, image("save", path="$DIR/nowhere/image.tar")], prepare=layout()),
    case("a registry that does not answer is named", refused("system", "127.0.0.1:1", "ECONNREFUSED"),
         [store(), image("pull", path="127.0.0.1:1/one:1")]),
    case("a registry that does not answer is named to who pushes, too",
         refused("system", "127.0.0.1:1", "ECONNREFUSED"),
         [*LOAD, image("push", path="127.0.0.1:1/one:1")], prepare=layout()),

    # --- Containers -----------------------------------------------------------------------------
    wrong_container("an image and a configuration at once are refused",
                    refused("invalid", "`opts.spec_json`", stage="arguments", id=True), spec="{}"),
    wrong_container("an image and a bundle at once are refused",
                    refused("invalid", "`opts.bundle`", stage="arguments", id=True),
                    bundle="$BUNDLE"),
    case("choices without an image are refused",
         refused("invalid", "`opts.image_overrides_json`", stage="arguments", id=True),
         [create(overrides="{}")]),
    wrong_container("choices that are no JSON are refused",
                    refused("invalid", "`opts.image_overrides_json`", id=True), overrides="{"),
    wrong_container("a choice that is unknown is refused", refused("invalid", "argv", id=True),
                    overrides='{"argv": ["ls"]}'),
    wrong_container("a choice of a wrong type is refused",
                    refused("invalid", "`memory`: invalid type", id=True),
                    overrides='{"memory": "much"}'),
    wrong_container("a user whom the image does not know is refused",
                    refused("not-found", '"nobody"', id=True), overrides='{"user": "nobody"}'),
    case("an image without a program is refused",
         refused("invalid", "nothing to run", id=True, advises="args"),
         [store(), image("import", path="$DIR/tree"), create(image=1)], prepare=_tree),
    wrong_container("a container whose changes were not kept is not committed",
                    refused("state", "not kept", id=True),
                    START, WAIT, image("commit"), still="stopped"),
    wrong_container("a container that has not stopped is not committed",
                    refused("state", "created", id=True), image("commit"), still="created",
                    changes="$DIR/changes"),
    case("a container of a bundle is not committed", refused("state", "no image", id=True),
         [store(), create(overlay=1, changes="$DIR/changes"), START, WAIT, image("commit")],
         put={"/process/args": ["/bin/true"]}, still="stopped"),
]
