//! A bundle and a state directory for a test, and the command in it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";

/// A bundle and a state directory of its own, removed in the end.
pub struct Scene {
    pub directory: PathBuf,
}

impl Scene {
    /// `None`, after saying so, where the suite cannot run.
    pub fn new(name: &str) -> Option<Scene> {
        // SAFETY: no arguments.
        if unsafe { libc::geteuid() } != 0 {
            println!("skipped: root");
            return None;
        }
        if !Path::new(BUSYBOX).exists() {
            println!("skipped: busybox (package busybox-static)");
            return None;
        }
        let directory =
            std::env::temp_dir().join(format!("locule-cli-{}-{name}", std::process::id()));
        let scene = Scene { directory };
        for place in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(scene.bundle().join("rootfs").join(place)).expect("mkdir");
        }
        fs::copy(BUSYBOX, scene.bundle().join("rootfs/bin/busybox")).expect("copy");
        for name in ["cat", "echo", "env", "false", "id", "sh", "sleep", "test", "true"] {
            let link = scene.bundle().join("rootfs/bin").join(name);
            std::os::unix::fs::symlink("busybox", link).expect("symlink");
        }
        let made = scene.locule(&["spec", "--bundle", scene.bundle().to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        scene.change(|config| {
            config["process"]["terminal"] = json!(false);
            config["linux"]["cgroupsPath"] = json!(scene.cgroup());
        });
        Some(scene)
    }

    pub fn cgroup(&self) -> String {
        format!("/locule/{}", self.directory.file_name().unwrap().to_str().unwrap())
    }

    pub fn bundle(&self) -> PathBuf {
        self.directory.join("bundle")
    }

    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.bundle().join("config.json");
        let mut config: Value =
            serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        change(&mut config);
        fs::write(&path, config.to_string()).expect("write");
    }

    pub fn args(&self, args: &[&str]) {
        self.change(|config| config["process"]["args"] = json!(args));
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("--root").arg(self.directory.join("state")).args(words);
        let _ = fs::create_dir_all(self.bundle());
        command.current_dir(self.bundle()).stdin(Stdio::null());
        command
    }

    /// Its output goes to files: a container that stays keeps pipes open.
    pub fn locule(&self, words: &[&str]) -> Output {
        let mut command = self.command(words);
        let paths = ["out", "err"].map(|name| self.directory.join(name));
        let files = paths.each_ref().map(|path| fs::File::create(path).expect("a file"));
        let [out, err] = files;
        let status = command.stdout(out).stderr(err).status().expect("run it");
        let [stdout, stderr] = paths.map(|path| fs::read(path).expect("read"));
        Output { status, stdout, stderr }
    }

    #[track_caller]
    pub fn fine(&self, words: &[&str]) -> String {
        let output = self.locule(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        // Callers read both streams as one document.
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    #[track_caller]
    pub fn fails(&self, words: &[&str], code: i32) -> String {
        let output = self.locule(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).expect("text")
    }
}

/// The one that was built beside this test; on another machine the one that came along.
pub fn program() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_locule"));
    if built.exists() { built } else { PathBuf::from("locule") }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let list = self.locule(&["list", "-q"]);
        for id in String::from_utf8_lossy(&list.stdout).lines() {
            self.locule(&["delete", "--force", id]);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
