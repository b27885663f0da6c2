//! `process` documents, as `exec` takes them.

use std::sync::LazyLock;

use locule::Error;
use locule::fuzzing::{Caller, compile_exec};
use locule::spec::{self, Spec};

use crate::plan;

/// The container that the process is run in.
static CONTAINER: LazyLock<Spec> = LazyLock::new(|| {
    let json = include_bytes!("../corpus/config/docker.json");
    spec::parse(json).expect("the corpus has it right")
});

pub fn run(json: &[u8]) {
    let container = CONTAINER.process().as_ref().expect("it has one");
    let alone = spec::parse_process(json);
    let over = spec::parse_process_over(json, container);
    // What stands for itself stands in a container, too: but half a user would be another one there.
    let half = |error: &Error| matches!(error.pointer(), Some("/user/uid" | "/user/gid"));
    assert!(alone.is_err() || over.as_ref().err().is_none_or(half), "{over:?}");
    for process in [alone, over] {
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                plan::check_error(&error);
                continue;
            }
        };
        if let Err(error) = spec::validate_process_in(&process, &CONTAINER) {
            assert!(error.pointer().is_some(), "no pointer: {error}");
            plan::check_error(&error);
            continue;
        }
        spec::validate_process(&process).expect("the rules of a container are more, not fewer");
        for caller in [Caller::Root, Caller::User] {
            match compile_exec(&CONTAINER, &process, caller) {
                Ok(made) => plan::check(&made),
                Err(error) => plan::check_error(&error),
            }
        }
    }
}
