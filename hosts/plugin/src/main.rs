//! `locule plugin`: looks at plugins, tries them without a container, and compiles them.

#![forbid(unsafe_op_in_unsafe_fn)]

mod arguments;
mod log;
mod subject;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A pipe that nobody reads any more ends this program, and not with a panic.
    // SAFETY: the default disposition, before there is a second thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let matches = arguments::command().get_matches();
    log::open();
    match verbs::run(&matches) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("locule plugin: {message}");
            ExitCode::FAILURE
        }
    }
}
