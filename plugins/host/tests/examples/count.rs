//! `count`: what a plugin remembers.

use crate::scene::*;
use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![containers_are_counted_from_runtime_to_runtime];

fn containers_are_counted_from_runtime_to_runtime(t: &Test) {
    let members = json!({ "limits": { "memoryBytes": 128 << 20 } });
    let first = engine(t, vec![example("count", members.clone())]);
    for expected in ["0", "1"] {
        assert_eq!(run(t, &first, &t.shell("echo $LOCULE_COUNT")).1, expected);
    }
    let second = engine(t, vec![example("count", members.clone())]);
    assert_eq!(run(t, &second, &t.shell("echo $LOCULE_COUNT")).1, "2");
    // Under another name it is another plugin.
    let mut other = members;
    other["name"] = json!("other");
    let other = engine(t, vec![example("count", other)]);
    assert_eq!(run(t, &other, &t.shell("echo $LOCULE_COUNT")).1, "0");
    std::fs::remove_dir_all(t.state_dir.join("@plugins")).expect("what they remember");
}
