//! What `process` in `config.json` says, as the program finds it.

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![a_limit_of_four_descriptors_is_the_programs_alone];

fn a_limit_of_four_descriptors_is_the_programs_alone(t: &Test) {
    for no_new_privileges in [true, false] {
        let mut spec = t.shell("ulimit -n; ulimit -Hn");
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 4, "hard": 5 }]);
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["prlimit64"], "action": "SCMP_ACT_ERRNO",
                           "args": [{ "index": 2, "value": 0, "op": "SCMP_CMP_NE" }] }]
        });
        assert_eq!(t.run(&spec).success(), "4\n5");
    }
}
