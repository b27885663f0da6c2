//! Debian's registry, on an address of this machine's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use crate::tool;

/// How a registry is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// By anybody, over plain HTTP.
    None,
    /// With TLS, by the user `user` with the password `secret`.
    Full,
}

/// A registry that runs until this is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    dir: PathBuf,
    address: String,
}

/// The password `secret`, in bcrypt.
const USERS: &str = "user:$2y$04$8yJVKMJg3MMXfya7O8CEDO2MVYAzqND9/fJPYZFVgvy/ID0aHQRoW\n";

impl Registry {
    /// Starts one with all that it has in a new directory. `None` if a program for it is missing.
    pub fn start(dir: &Path, security: Security) -> Option<Registry> {
        let program = tool("docker-registry")?;
        fs::create_dir(dir).expect("a directory for the registry");
        let shown = dir.display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info, formatter: text}}\n\
             storage: {{filesystem: {{rootdirectory: {shown}/data}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: 127.0.0.1:0\n"
        );
        if security == Security::Full {
            let openssl = tool("openssl")?;
            let make = "req -x509 -newkey rsa:2048 -nodes -days 2";
            for rest in [
                "-keyout ca-key.pem -out ca.pem -subj /CN=authority",
                "-keyout key.pem -out cert.pem -CA ca.pem -CAkey ca-key.pem -subj /CN=localhost \
                 -addext basicConstraints=CA:FALSE -addext subjectAltName=IP:127.0.0.1",
            ] {
                openssl.run(dir, make.split_whitespace().chain(rest.split_whitespace()));
            }
            fs::write(dir.join("users"), USERS).expect("write");
            config += &format!(
                "  tls: {{certificate: {shown}/cert.pem, key: {shown}/key.pem}}\n\
                 auth: {{htpasswd: {{realm: here, path: {shown}/users}}}}\n"
            );
        }
        fs::write(dir.join("config.yml"), config).expect("write");
        let log = File::create(dir.join("log")).expect("a file for the log");
        let mut child = program
            .command(dir)
            .args(["serve", "config.yml"])
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("a program in PATH");
        let address = loop {
            let log = fs::read_to_string(dir.join("log")).expect("its log");
            let start =
                log.split("listening on ").nth(1).and_then(|rest| rest.split_once(['"', ',']));
            if let Some((address, _)) = start {
                break address.trim().to_owned();
            }
            assert!(child.try_wait().expect("its status").is_none(), "{log}");
            std::thread::sleep(Duration::from_millis(20));
        };
        Some(Registry { child, dir: dir.to_owned(), address })
    }

    /// The name of an image there.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// The certificate of one that has TLS.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The requests so far that have these words in their line of the log.
    pub fn requests(&self, words: &[&str]) -> usize {
        let log = fs::read_to_string(self.dir.join("log")).expect("its log");
        let asked =
            |line: &&str| line.contains("\" 20") && words.iter().all(|word| line.contains(word));
        log.lines().filter(asked).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
