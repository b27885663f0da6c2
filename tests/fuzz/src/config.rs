//! `config.json`: parsed, checked, compiled for root and for a user. What is accepted makes a
//! plan that can be read, is the same a second time, and survives being written as JSON.

use locule::fuzzing::{Caller, compile_container, compile_exec};
use locule::spec;

use crate::plan;

pub fn run(json: &[u8]) {
    let spec = match spec::parse(json) {
        Ok(spec) => spec,
        Err(error) => return plan::check_error(&error),
    };
    if let Err(error) = spec::validate(&spec) {
        assert!(error.pointer().is_some(), "no pointer: {error}");
        return plan::check_error(&error);
    }
    // Paths of a parsed spec are UTF-8.
    let written = spec::to_json(&spec).expect("a spec that was parsed can be written");
    let again = spec::parse(&written).expect("what was written can be parsed");
    assert_eq!(spec, again, "the same after being written");
    spec::validate(&again).expect("and still in order");

    for caller in [Caller::Root, Caller::User] {
        match compile_container(&spec, caller) {
            Ok(made) => {
                plan::check(&made);
                let again = compile_container(&spec, caller).expect("as before");
                assert_eq!(made.to_text(), again.to_text(), "the same plan every time");
            }
            Err(error) => plan::check_error(&error),
        }
        if let Some(process) = spec.process() {
            match compile_exec(&spec, process, caller) {
                Ok(made) => plan::check(&made),
                Err(error) => plan::check_error(&error),
            }
        }
    }
}
