//! Roots of several layers, and changes that are kept.

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![probe];

fn probe(t: &Test) {
    t.need_root();
    let mut spec = t.shell("id -u; echo a >/new && cat /new");
    spec["root"]["readonly"] = json!(false);
    let linux = &mut spec["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": 300000, "size": 1000 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": 300000, "size": 1000 }]);
    let options = Create { rootfs: Rootfs::Overlay, ..t.options("run", &spec) };
    println!("{:?}", t.run_with(options));
}
