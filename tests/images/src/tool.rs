//! Other people's programs.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// Says why a test does not run here.
pub fn skip(missing: &str) {
    println!("skipped: {missing}");
}

/// Whether this is root.
pub fn is_root() -> bool {
    // SAFETY: reads no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A program that is installed.
#[derive(Debug, Clone)]
pub struct Tool(String);

/// The program, if it is installed; says so if it is not.
pub fn tool(name: &str) -> Option<Tool> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if !found {
        skip(name);
    }
    found.then(|| Tool(name.to_owned()))
}

impl Tool {
    /// Runs it in a directory, and gives what it writes. Panics if it fails.
    pub fn run<A: AsRef<OsStr>>(&self, dir: &Path, args: impl IntoIterator<Item = A>) -> String {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let output = self.attempt(dir, &args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{} {args:?}: {}\n{}{}",
            self.0,
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs it in a directory.
    pub fn attempt<A: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Output {
        self.command(dir).args(args).output().expect("a program in PATH")
    }

    /// A command of it, with its temporary files in the directory.
    pub fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command.current_dir(dir).env("TMPDIR", dir);
        command
    }
}
