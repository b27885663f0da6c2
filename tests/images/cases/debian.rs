//! Real images: a Debian, which umoci makes in two layers, skopeo carries to a registry, and we pull and run,
//! as root and as an ordinary user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use locule::image::{Ids, Limits, Overrides, RegistryOptions, SaveOptions, TakeOptions, Transfer};
use locule_images::{Registry, Security, difference, is_root, look, skip, tool};

use super::commits::{run, runtime};
use super::{load, scratch, store};

/// Somebody whom this machine does not know.
const USER: u32 = 54321;
const PLACE: &str = "LOCULE_TEST_USER_IN";

/// Its root file system, made if it is missing.
fn debian() -> Option<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tests.join("../../target/images");
    if !out.join("debian").exists() {
        tool("debootstrap")?;
        let made = Command::new(tests.join("assets.sh")).arg(&out).status();
        if !made.is_ok_and(|status| status.success()) {
            skip("Debian's packages");
            return None;
        }
    }
    Some(out.join("debian"))
}

/// What counts the packages, and looks at what the second layer has changed.
const ASKED: &str = "dpkg-query -W | wc -l; cat /etc/second; ls /usr/share/doc; stat -c '%a %U' \
                     /usr/bin/passwd; id -un";

fn asked() -> Overrides {
    let args = ["sh", "-c", ASKED].map(str::to_owned).to_vec();
    Overrides { args: Some(args), entrypoint: Some(Vec::new()), ..Overrides::default() }
}

#[test]
fn a_debian_is_pulled_and_runs_for_root_and_for_a_user() {
    if !is_root() {
        return skip("root");
    }
    let (Some(umoci), Some(skopeo)) = (tool("umoci"), tool("skopeo")) else { return };
    let Some(debian) = debian() else { return };
    let dir = scratch();
    let dir = dir.path();
    let Some(registry) = Registry::start(&dir.join("registry"), Security::None) else { return };
    let umoci = |args: &str| umoci.run(dir, args.split_whitespace());
    umoci("init --layout layout");
    umoci("new --image layout:debian");
    umoci(&format!("insert --image layout:debian {} /", debian.display()));
    umoci("config --image layout:debian --config.cmd /bin/bash --config.env LANG=C.UTF-8");
    umoci("unpack --image layout:debian bundle");
    let root = dir.join("bundle/rootfs");
    fs::write(root.join("etc/second"), "second layer\n").unwrap();
    fs::remove_dir_all(root.join("usr/share/doc")).unwrap();
    fs::create_dir(root.join("usr/share/doc")).unwrap();
    fs::remove_file(root.join("usr/bin/perl")).unwrap();
    umoci("repack --image layout:debian bundle");
    let name = registry.name("debian:12");
    let to = format!("docker://{name}");
    skopeo.run(dir, ["copy", "-q", "--dest-tls-verify=false", "oci:layout:debian", &to]);

    let own = store(dir);
    let options = RegistryOptions::default();
    let pulled = own.pull(&name, &TakeOptions::default(), &options, Transfer::default()).unwrap();
    let tree = dir.join("tree");
    pulled.unpack(&tree, &Ids::default(), &Limits::default(), Transfer::default()).unwrap();
    // What umoci has unpacked, before somebody else changed it, and once more after.
    umoci("unpack --image layout:debian again");
    assert_eq!(difference(&look(&tree), &look(&dir.join("again/rootfs"))), [""; 0]);
    fs::remove_dir_all(&tree).unwrap();

    let admin = format!("--admindir={}/var/lib/dpkg", debian.display());
    let packages = Command::new("dpkg-query").args([&admin, "-W"]).output();
    let packages = packages.ok().filter(|output| output.status.success());
    let Some(packages) = packages else { return skip("dpkg-query") };
    let packages = packages.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert!(packages > 50);
    let expected = format!("{packages}\nsecond layer\n4755 root\nroot\n");
    assert_eq!(run(&runtime(dir), &pulled, asked()), expected);

    // The same for a user who has a store of their own, and gets it out of a file.
    let home = dir.join("home");
    fs::create_dir(&home).unwrap();
    for path in [dir, &home] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    chown(&home, Some(USER), Some(USER)).unwrap();
    let saved = dir.join("saved.tar");
    pulled.save(&saved, &SaveOptions::default(), Transfer::default()).unwrap();
    let program = dir.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let ids = [format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()];
    let Some(setpriv) = tool("setpriv") else { return };
    let allowed =
        setpriv.attempt(dir, ids.iter().map(String::as_str).chain(["unshare", "-Ur", "true"]));
    if !allowed.status.success() {
        return skip("user namespaces for ordinary users");
    }
    let output = setpriv
        .command(dir)
        .args(&ids)
        .arg(&program)
        .args(["--exact", "debian::runs_as_a_user", "--nocapture"])
        .env(PLACE, &home)
        .env("LOCULE_TEST_IMAGE", &saved)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&expected), "{said}");
}

/// Not a test but what one starts, as a user.
#[test]
fn runs_as_a_user() {
    let Some(home) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let saved = PathBuf::from(std::env::var_os("LOCULE_TEST_IMAGE").unwrap());
    let image = load(&store(&home), &saved).unwrap();
    println!("{}", run(&runtime(&home), &image, asked()));
}
