//! What we write others read and run, and what they write we take: skopeo, umoci, podman.

use std::fs;
use std::path::{Path, PathBuf};

use locule::image::{Compression, Ids, Image, Limits, NewOptions, SaveOptions, Transfer};
use locule_images::{Tool, difference, look, tool};
use serde_json::{Value, json};

use super::commits::{create, image, output, run, runtime, script};
use super::{load, scratch, store};

fn save(image: &Image, path: PathBuf) -> PathBuf {
    image.save(&path, &SaveOptions::default(), Transfer::default()).unwrap();
    path
}

/// An image of three layers: the last is what a container has changed, in this compression.
fn committed(dir: &Path, compression: Compression) -> Option<Image> {
    let store = store(dir);
    let image = image(&store, dir)?;
    let runtime = runtime(dir);
    let made = script("echo new >/data/more; busybox rm -r /home/user; busybox ln -s more /data/l");
    let container = create(&runtime, &image, made, Some(&dir.join("changes"))).unwrap();
    output(&container);
    let options = NewOptions {
        name: Some("box:changed".to_owned()),
        config: Some(json!({ "Cmd": ["busybox cat /data/more /data/l"] })),
        compression,
        author: Some("nobody".to_owned()),
        ..NewOptions::default()
    };
    let committed = store.commit(&container, &options, Transfer::default()).unwrap();
    container.delete(true).unwrap();
    Some(committed)
}

/// The tree of that as an image of one layer in this compression.
fn imported(dir: &Path, compression: Compression) -> Option<Image> {
    let changed = committed(dir, compression)?;
    let tree = dir.join("tree");
    changed.unpack(&tree, &Ids::default(), &Limits::default(), Transfer::default()).unwrap();
    let options = NewOptions {
        name: Some("box:imported".to_owned()),
        config: Some(json!({
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["busybox cat /data/more /data/l"],
            "Env": ["PATH=/bin"],
            "ExposedPorts": { "80/tcp": {} },
            "Labels": { "a": "b" },
        })),
        compression,
        ..NewOptions::default()
    };
    Some(store(dir).import(&tree, &options, Transfer::default()).unwrap())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn skopeo_reads_what_we_write() {
    let Some(skopeo) = tool("skopeo") else { return };
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let dir = scratch();
        let dir = dir.path();
        let Some(image) = committed(dir, compression) else { return };
        let said = image.inspect().unwrap();
        let directory = save(&image, dir.join("saved"));
        let archive = save(&image, dir.join("saved.tar"));
        let name = &image.names()[0];
        for (number, from) in [
            format!("oci:{}:{name}", directory.display()),
            format!("oci-archive:{}:{name}", archive.display()),
        ]
        .iter()
        .enumerate()
        {
            let seen = json(&skopeo.run(dir, ["inspect", from]));
            assert_eq!(seen["Digest"], image.digest(), "{from}");
            assert_eq!(seen["Layers"].as_array().unwrap().len(), 3);
            assert_eq!(seen["Labels"]["a.label"], "its value");
            let config = json(&skopeo.run(dir, ["inspect", "--config", "--raw", from]));
            assert_eq!(config, said["config"]);
            // It verifies what it copies.
            let copy = format!("dir:copy{number}");
            skopeo.run(dir, ["copy", "-q", from, &copy]);
            let manifest = fs::read(dir.join(format!("copy{number}/manifest.json"))).unwrap();
            assert_eq!(locule_images::sha256(&manifest), image.digest());
        }
    }
}

#[test]
fn what_skopeo_writes_we_take_as_the_same_image() {
    let Some(skopeo) = tool("skopeo") else { return };
    let dir = scratch();
    let dir = dir.path();
    let Some(image) = imported(dir, Compression::Gzip) else { return };
    let from = format!("oci:{}", save(&image, dir.join("saved")).display());
    let copy = |to: &str| skopeo.run(dir, ["copy", "-q", &from, to]);
    copy("oci:theirs:docker.io/library/box:copied");
    copy("oci-archive:theirs.tar:docker.io/library/box:copied");
    copy("docker-archive:docker.tar:docker.io/library/box:copied");
    let tree = |image: &Image, name: &str| {
        let tree = dir.join(name);
        image.unpack(&tree, &Ids::default(), &Limits::default(), Transfer::default()).unwrap();
        look(&tree)
    };
    let ours = tree(&image, "ours");
    for file in ["theirs", "theirs.tar", "docker.tar"] {
        let other = dir.join(format!("with-{file}"));
        fs::create_dir(&other).unwrap();
        let taken = load(&store(&other), &dir.join(file)).unwrap();
        // A docker-archive has no manifest.
        if file != "docker.tar" {
            assert_eq!(taken.digest(), image.digest(), "{file}");
        }
        assert_eq!(taken.names(), ["docker.io/library/box:copied"]);
        assert_eq!(difference(&tree(&taken, &format!("of-{file}")), &ours), [""; 0], "{file}");
        let said = run(&runtime(dir), &taken, Default::default());
        assert_eq!(said, "new\nnew\n", "{file}");
    }
}

#[test]
fn umoci_unpacks_what_we_write_to_what_we_unpack() {
    let Some(umoci) = tool("umoci") else { return };
    for compression in [Compression::None, Compression::Gzip] {
        let dir = scratch();
        let dir = dir.path();
        let Some(image) = imported(dir, compression) else { return };
        save(&image, dir.join("saved"));
        let from = format!("saved:{}", image.names()[0]);
        umoci.run(dir, ["unpack", "--image", &from, "bundle"]);
        let ours = dir.join("ours");
        image.unpack(&ours, &Ids::default(), &Limits::default(), Transfer::default()).unwrap();
        assert_eq!(difference(&look(&ours), &look(&dir.join("bundle/rootfs"))), [""; 0]);
        let config = json(&fs::read_to_string(dir.join("bundle/config.json")).unwrap());
        assert_eq!(config["process"]["args"][2], "busybox cat /data/more /data/l");
    }
}

/// Podman, with all that it keeps in a directory.
struct Podman<'a>(Tool, &'a Path);

impl<'a> Podman<'a> {
    fn new(dir: &'a Path) -> Option<Podman<'a>> {
        for helper in ["podman", "conmon", "crun"] {
            tool(helper)?;
        }
        Some(Podman(tool("unshare")?, dir))
    }

    /// With mounts of its own: it leaves things in `/run`, and crun wants to know nothing of cgroups in the
    /// mixture that some machines have.
    fn run(&self, args: &[&str]) -> String {
        let script = "mount -t tmpfs run /run && mount -t tmpfs none /sys/fs/cgroup && \
                      exec podman --root $PWD/storage --runroot $PWD/run --tmpdir $PWD/tmp \
                      --storage-driver vfs --cgroup-manager cgroupfs --events-backend file \
                      --runtime crun \"$@\"";
        let start = ["--mount", "--propagation", "private", "sh", "-c", script, "sh"];
        self.0.run(self.1, start.iter().chain(args))
    }

    fn box_run(&self, image: &str) -> String {
        let limits = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"];
        let mut args = vec!["run", "--rm", "--network", "none", "--cgroups", "disabled"];
        args.extend(limits);
        args.push(image);
        self.run(&args)
    }
}

#[test]
fn podman_runs_what_we_write_and_we_run_what_podman_writes() {
    let dir = scratch();
    let dir = dir.path();
    let Some(podman) = Podman::new(dir) else { return };
    let Some(of_three) = committed(dir, Compression::Gzip) else { return };
    save(&of_three, dir.join("three.tar"));
    podman.run(&["load", "--quiet", "--input", "three.tar"]);
    assert_eq!(podman.box_run("docker.io/library/box:changed"), "new\nnew\n");
    let told = json(&podman.run(&["inspect", "docker.io/library/box:changed"]));
    assert_eq!(told[0]["Digest"], of_three.digest());
    assert_eq!(told[0]["Author"], "nobody");

    let one = scratch();
    let Some(image) = imported(one.path(), Compression::Gzip) else { return };
    save(&image, dir.join("one.tar"));
    podman.run(&["load", "--quiet", "--input", "one.tar"]);
    for (format, file) in [("oci-archive", "o.tar"), ("docker-archive", "d.tar"), ("oci-dir", "o")]
    {
        podman.run(&["save", "--quiet", "--format", format, "--output", file, "box:imported"]);
        let other = dir.join(format!("with-{file}"));
        fs::create_dir(&other).unwrap();
        let taken = load(&store(&other), &dir.join(file)).unwrap();
        let said = run(&runtime(dir), &taken, Default::default());
        assert_eq!(said, "new\nnew\n", "{format}");
        let rootfs = |image: &Image| image.inspect().unwrap()["config"]["rootfs"].clone();
        assert_eq!(rootfs(&taken), rootfs(&image), "{format}");
    }
}
