//! Encoded plans: decoded in place, with every field. A plan that the compiler made is in order;
//! other bytes are one or are refused.

use locule::{Category, Error, Plan};
use locule_plan::{Document, Operation, Stream, Value};

pub fn run(bytes: &[u8]) {
    let Ok(document) = Document::parse(bytes) else { return };
    let sound = document.check().is_ok();
    for stream in Stream::ALL {
        let mut steps = 0;
        for step in document.stream(stream) {
            match step {
                Ok(step) => read(&step.operation, None),
                Err(_) => assert!(!sound, "checked, and yet malformed"),
            }
            steps += 1;
        }
        // An operation has eight bytes at least, and a NUL: nothing is read twice.
        assert!(steps * 9 <= bytes.len() + 9, "{steps} steps");
    }
}

/// Reads every field; with `slots`, those that name one have to be below it.
fn read(operation: &Operation<'_>, slots: Option<u64>) {
    assert_eq!(Operation::name_of(operation.code()), Some(operation.name()));
    operation.fields(&mut |name, value| match value {
        Value::Unsigned(number) => {
            let wrong = name == "slot" && slots.is_some_and(|slots| number >= slots);
            assert!(!wrong, "{operation:?}: there is no slot {number}");
        }
        Value::Signed(_) => {}
        Value::Text(text) => drop(text.to_bytes().to_owned()),
        Value::Bytes(bytes) => drop(bytes.to_owned()),
        Value::List(list) => {
            assert_eq!(list.iter().count(), list.len());
            assert_eq!(list.is_empty(), list.iter().next().is_none());
        }
        Value::Numbers(numbers) => assert_eq!(numbers.iter().count(), numbers.len()),
    });
}

/// A plan that the compiler made.
pub fn check(plan: &Plan) {
    let (bytes, slots) = locule::fuzzing::encoded(plan);
    let document = Document::parse(bytes).expect("a plan begins as one");
    document.check().expect("its operations can be read");
    assert_eq!(document.slots() as usize, slots);
    for stream in Stream::ALL {
        for step in document.stream(stream).flatten() {
            read(&step.operation, Some(slots as u64));
        }
    }
    plan.to_text();
    plan.to_json();
}

/// A refusal says what is wrong, and is none of our own doing.
pub fn check_error(error: &Error) {
    assert_ne!(error.category(), Category::Bug, "{error}");
    assert!(!error.to_string().is_empty());
    assert!(error.pointer().is_none_or(|pointer| pointer.starts_with('/')), "{error}");
}
