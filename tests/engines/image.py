"""An image with Debian's static busybox, in one file that every engine loads."""

import hashlib
import io
import json
import subprocess
import tarfile

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REFERENCE = "docker.io/library/locule-engines:1"
PAUSE = "docker.io/library/locule-pause:1"

# What stands where a program should be.
NOT_EXECUTABLE = "/bin/not-executable"

FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/tmp:/bin/sh\n",
    "etc/group": b"root:x:0:\nworker:x:1000:\n",
    NOT_EXECUTABLE[1:]: b"#!/bin/sh\n",
}
FOLDERS = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "sys": 0o755,
    "tmp": 0o1777,
    "var": 0o755,
}

# The first process of a pod: ends when it is asked to.
WAITING = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"]


def write(path, reference, command=("/bin/sh",)):
    """Writes an OCI layout that is also what `docker load` wants."""
    layer = layer_of_busybox()
    config = encoded(
        {
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "config": {"Env": [f"PATH={PATH}"], "Cmd": list(command)},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            "history": [
                {"created": "1970-01-01T00:00:00Z", "created_by": "the tests of the engines"}
            ],
        }
    )
    manifest = encoded(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("application/vnd.oci.image.config.v1+json", config),
            "layers": [described("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    index = described("application/vnd.oci.image.manifest.v1+json", manifest)
    index["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    place = {
        name: f"blobs/sha256/{digest(blob).partition(':')[2]}"
        for name, blob in (("config", config), ("layer", layer), ("manifest", manifest))
    }
    with tarfile.open(path, "w") as tar:
        add(tar, "oci-layout", encoded({"imageLayoutVersion": "1.0.0"}))
        add(tar, "index.json", encoded({"schemaVersion": 2, "manifests": [index]}))
        add(tar, place["config"], config)
        add(tar, place["layer"], layer)
        add(tar, place["manifest"], manifest)
        add(
            tar,
            "manifest.json",
            encoded(
                [
                    {
                        "Config": place["config"],
                        "RepoTags": [reference],
                        "Layers": [place["layer"]],
                    }
                ]
            ),
        )


def layer_of_busybox():
    binary = subprocess.run(["which", "busybox"], capture_output=True, text=True, check=True)
    with open(binary.stdout.strip(), "rb") as file:
        busybox = file.read()
    names = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in FOLDERS.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        add(tar, "bin/busybox", busybox, 0o755)
        for name in names.stdout.split():
            if name != "busybox":
                entry = tarfile.TarInfo(f"bin/{name}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
        for name, text in FILES.items():
            add(tar, name, text)
    return buffer.getvalue()


def add(tar, name, text, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text), mode
    tar.addfile(entry, io.BytesIO(text))


def encoded(document):
    return json.dumps(document).encode()


def digest(blob):
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def described(kind, blob):
    return {"mediaType": kind, "digest": digest(blob), "size": len(blob)}


def architecture():
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True)
    return {"x86_64": "amd64", "aarch64": "arm64"}[machine.stdout.strip()]
