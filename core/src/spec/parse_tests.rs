use super::*;
use crate::spec::{validate, validate_process};

/// The smallest document that passes, with `process` and `rest` added to.
fn spec(rest: &str) -> String {
    format!(
        r#"{{"ociVersion":"1.3.0","root":{{"path":"rootfs"}},
            "process":{{"args":["true"],"cwd":"/"}}{rest}}}"#
    )
}

#[track_caller]
fn refusal(json: &str) -> (String, String) {
    let error = parse(json.as_bytes()).expect_err("the document must be refused");
    assert_eq!(error.category(), Category::Spec);
    assert_eq!(error.stage(), Stage::Validate);
    (error.pointer().unwrap_or("none").to_owned(), error.to_string())
}

#[track_caller]
fn process_refusal(json: &str) -> String {
    let error = parse_process(json.as_bytes()).expect_err("the document must be refused");
    error.pointer().unwrap_or("none").to_owned()
}

#[test]
fn a_minimal_document_is_read() {
    let spec = parse(spec("").as_bytes()).unwrap();
    let process = spec.process().as_ref().unwrap();
    assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
    assert_eq!(process.no_new_privileges(), None);
    assert!(spec.linux().is_none() && spec.mounts().is_none());
}

#[test]
fn wrong_types_are_refused_with_the_exact_pointer() {
    for (rest, pointer) in [
        (r#","hostname":1"#, "/hostname"),
        (r#","mounts":{}"#, "/mounts"),
        (r#","mounts":[{"destination":"/a"},{"destination":7}]"#, "/mounts/1/destination"),
        (r#","mounts":[{"destination":"/a","options":["ro",1]}]"#, "/mounts/0/options/1"),
        (r#","mounts":[{}]"#, "/mounts/0/destination"),
        (r#","linux":[]"#, "/linux"),
        (
            r#","linux":{"namespaces":[{"type":"network"},{"type":"net"}]}"#,
            "/linux/namespaces/1/type",
        ),
        (r#","linux":{"sysctl":{"net.a/b":1}}"#, "/linux/sysctl/net.a~1b"),
        (r#","linux":{"resources":[]}"#, "/linux/resources"),
        (r#","linux":{"resources":{"pids":{"limit":1.5}}}"#, "/linux/resources/pids/limit"),
        (r#","linux":{"seccomp":{}}"#, "/linux/seccomp/defaultAction"),
        (
            r#","linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NO"}]}}"#,
            "/linux/seccomp/syscalls/0/action",
        ),
        (r#","hooks":{"poststop":[{"path":"/a","timeout":"1"}]}"#, "/hooks/poststop/0/timeout"),
    ] {
        assert_eq!(refusal(&spec(rest)).0, pointer, "{rest}");
    }
}

#[test]
fn wrong_values_in_a_process_are_refused_with_the_exact_pointer() {
    for (field, pointer) in [
        (r#""rlimits":[{"type":"RLIMIT_NO","soft":1,"hard":1}]"#, "/rlimits/0/type"),
        (r#""user":[]"#, "/user"),
        (r#""user":{"uid":-1}"#, "/user/uid"),
        (r#""user":{"uid":"0"}"#, "/user/uid"),
        (r#""user":{"uid":4294967296}"#, "/user/uid"),
        (r#""user":{"additionalGids":[1,true]}"#, "/user/additionalGids/1"),
        (r#""capabilities":[]"#, "/capabilities"),
        (r#""capabilities":{"bounding":["CAP_KILL",3]}"#, "/capabilities/bounding/1"),
        (r#""noNewPrivileges":"yes""#, "/noNewPrivileges"),
        (r#""env":["A=b\u0000c"]"#, "/env/0"),
        (r#""scheduler":{"policy":"SCHED_BEST"}"#, "/scheduler/policy"),
        (r#""ioPriority":{"priority":1}"#, "/ioPriority/class"),
        (r#""execCPUAffinity":{"initial":"a-b"}"#, "/execCPUAffinity/initial"),
    ] {
        let json = format!(r#"{{"args":["true"],"cwd":"/",{field}}}"#);
        assert_eq!(process_refusal(&json), pointer, "{field}");
    }
    assert_eq!(process_refusal(r#"{"args":["true"]}"#), "/cwd");
}

#[test]
fn syntax_errors_name_line_and_column() {
    let (_, message) = refusal("{\n  \"ociVersion\": \"1.0.0\",\n}");
    assert!(message.contains("line 3 column 1"), "{message}");
    assert!(refusal("").1.contains("line 1"));
    assert!(refusal("{} {}").1.contains("trailing"));
    assert_eq!(refusal("[]").1, "the document is not a JSON object");
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let error = parse(b"{\"ociVersion\":\"1.0.0\",\"hostname\":\"\xff\"}").unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn a_key_that_appears_twice_is_refused_wherever_it_is() {
    assert_eq!(refusal(r#"{"ociVersion":"1.0.0","ociVersion":"1.0.0"}"#).0, "/ociVersion");
    let twice = r#","annotations":{"a":"1","b":"2","a":"3"}"#;
    assert_eq!(refusal(&spec(twice)).0, "/annotations/a");
    let many: String = (0..40).map(|n| format!(r#""k{n}":"","#)).collect();
    let twice = format!(r#","unknown":[{{"x":{{{many}"k7":""}}}}]"#);
    assert_eq!(refusal(&spec(&twice)).0, "/unknown/0/x/k7");
}

#[test]
fn unknown_members_are_ignored() {
    let json = spec(r#","futureThing":{"a":[1,null]},"linux":{"alsoNew":1,"resources":{"x":[]}}"#);
    parse(json.as_bytes()).unwrap();
}

#[test]
fn sections_of_other_platforms_are_not_even_looked_at() {
    parse(
        spec(r#","windows":7,"solaris":[],"zos":"","vm":{"kernel":1},"uidMappings":3"#).as_bytes(),
    )
    .unwrap();
}

#[test]
fn every_version_of_the_first_major_is_accepted_and_no_other() {
    for version in ["1.0.0", "1.3.0", "1.0.2-dev", "1.1.0+dev", "1.0.0-rc5-dev", "1.99.0"] {
        let json = spec("").replace("1.3.0", version);
        parse(json.as_bytes()).unwrap_or_else(|e| panic!("{version}: {e}"));
    }
    for version in ["", "1", "1.0", "2.0.0", "0.9.0", "v1.0.0", "1.0.x", "1.0.0-", "01", "1.0.0.0"]
    {
        let json = spec("").replace("1.3.0", version);
        assert_eq!(refusal(&json).0, "/ociVersion", "{version}");
    }
    assert_eq!(refusal("{}").0, "/ociVersion");
    assert_eq!(refusal(r#"{"ociVersion":1}"#).0, "/ociVersion");
}

#[test]
fn null_means_absent() {
    let json = spec(
        r#","mounts":null,"hooks":null,"annotations":null,"linux":{"namespaces":null,
        "devices":null,"resources":{"devices":null,"memory":{"limit":null}},
        "seccomp":{"defaultAction":"SCMP_ACT_ALLOW","architectures":null,"syscalls":[
        {"names":["read"],"action":"SCMP_ACT_ALLOW","args":null}]}}"#,
    );
    let spec = parse(json.as_bytes()).unwrap();
    assert!(spec.mounts().is_none());
    let process =
        br#"{"args":["a"],"cwd":"/","user":null,"env":null,"capabilities":{"bounding":null}}"#;
    let process = parse_process(process).unwrap();
    assert!(process.capabilities().as_ref().unwrap().bounding().is_none());
}

#[test]
fn an_empty_string_that_can_mean_nothing_is_absent() {
    let json = spec(
        r#","hostname":"","linux":{"cgroupsPath":"","namespaces":[{"type":"pid","path":""}],
        "resources":{"devices":[{"allow":false,"type":"","access":"rwm"}]}}"#,
    );
    let spec = parse(json.as_bytes()).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert!(spec.hostname().is_none() && linux.cgroups_path().is_none());
    assert!(linux.namespaces().as_ref().unwrap()[0].path().is_none());
    validate(&spec).unwrap();
}

#[test]
fn unknown_capabilities_are_dropped_and_known_ones_stay() {
    let json = br#"{"args":["a"],"cwd":"/",
        "capabilities":{"bounding":["CAP_KILL","CAP_FROM_THE_FUTURE","cap_chown","NET_RAW"]}}"#;
    let process = parse_process(json).unwrap();
    let set = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
    assert_eq!(vocabulary::capability_mask(set, 40), 1 << 5 | 1 | 1 << 13);
}

#[test]
fn scheduler_flags_that_oci_spec_misspells_survive_reading_and_writing() {
    for flag in ["SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RESET_ON_FORK"] {
        // A word in another place is no flag, and stays what it is.
        let json = spec("").replace(
            r#""cwd":"/""#,
            &format!(
                r#""cwd":"/","env":["A=SCHED_FLAG_D_L_OVERRUN","B=SCHED_RESET_ON_FORK"],
                   "scheduler":{{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,
                   "flags":["{flag}"]}}"#
            ),
        );
        let spec = parse(json.as_bytes()).unwrap();
        let written = to_json(&spec).unwrap();
        assert!(std::str::from_utf8(&written).unwrap().contains(&format!("[\"{flag}\"]")));
        assert_eq!(parse(&written).unwrap(), spec);
        let process = spec.process().as_ref().unwrap();
        let written = process_to_json(process).unwrap();
        assert_eq!(written["scheduler"]["flags"], serde_json::json!([flag]));
        assert_eq!(parse_process(written.to_string().as_bytes()).unwrap(), *process);
    }
}

#[test]
fn a_refused_word_is_compared_with_those_of_the_specification() {
    let json = br#"{"args":["a"],"cwd":"/","scheduler":{"policy":"SCHED_OTHER","flags":["X"]}}"#;
    let message = parse_process(json).unwrap_err().to_string();
    assert!(message.contains("SCHED_FLAG_RESET_ON_FORK, "), "{message}");
    assert!(message.contains("SCHED_FLAG_DL_OVERRUN, "), "{message}");
}

#[test]
fn a_limit_of_processes_without_a_number_is_none() {
    for (pids, limit) in [("{}", None), (r#"{"limit":null}"#, None), (r#"{"limit":0}"#, Some(0))] {
        let resources = parse_resources(format!(r#"{{"pids":{pids}}}"#).as_bytes()).unwrap();
        assert_eq!(resources.pids().as_ref().map(|pids| pids.limit()), limit, "{pids}");
    }
    assert!(parse_resources(br#"{"pids":[]}"#).is_err());
}

#[test]
fn a_limit_of_huge_pages_may_be_as_large_as_the_specification_lets_it() {
    let json = format!(r#"{{"hugepageLimits":[{{"pageSize":"2MB","limit":{}}}]}}"#, u64::MAX);
    let resources = parse_resources(json.as_bytes()).unwrap();
    assert_eq!(resources.hugepage_limits().as_ref().unwrap()[0].limit(), i64::MAX);
}

#[test]
fn a_process_over_the_containers_takes_what_it_does_not_say() {
    let container = parse_process(
        br#"{"args":["init"],"cwd":"/srv","user":{"uid":7,"gid":8},"env":["A=1"],"terminal":true,
            "capabilities":{"bounding":["CAP_KILL"]},"noNewPrivileges":true,"oomScoreAdj":5}"#,
    )
    .unwrap();
    let process = parse_process_over(br#"{"args":["ps"]}"#, &container).unwrap();
    assert_eq!(process.args().as_deref().unwrap(), ["ps"]);
    assert_eq!(process.user(), container.user());
    assert_eq!(process.env(), container.env());
    assert_eq!(process.cwd(), container.cwd());
    assert_eq!(process.capabilities(), container.capabilities());
    assert_eq!(process.no_new_privileges(), Some(true));
    assert_eq!(process.oom_score_adj(), Some(5));
    assert_eq!(process.terminal(), None);
    let process = parse_process_over(
        br#"{"args":["ps"],"user":{"uid":1,"gid":0},"env":[],"noNewPrivileges":false,
            "capabilities":{}}"#,
        &container,
    )
    .unwrap();
    assert_eq!((process.user().uid(), process.user().gid()), (1, 0));
    assert_eq!(process.env().as_deref(), Some(&[][..]));
    assert_eq!(process.no_new_privileges(), Some(false));
    assert!(process.capabilities().as_ref().unwrap().bounding().is_none());
}

#[test]
fn resources_are_read_alone() {
    let resources = parse_resources(br#"{"memory":{"limit":1},"cpu":{"cpus":""}}"#).unwrap();
    assert_eq!(resources.memory().unwrap().limit(), Some(1));
    assert_eq!(
        parse_resources(br#"{"cpu":{"shares":-1}}"#).unwrap_err().pointer(),
        Some("/cpu/shares")
    );
}

#[test]
fn what_engines_write_is_read_and_passes() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = here.ancestors().find_map(|dir| {
        let fixtures = dir.join("shared/fixtures/engine-specs");
        fixtures.is_dir().then_some(fixtures)
    });
    let Some(shared) = shared.or_else(|| std::env::var_os("LOCULE_ENGINE_SPECS").map(Into::into))
    else {
        println!("skipped: shared/fixtures/engine-specs is missing");
        return;
    };
    let mut read = 0;
    for entry in std::fs::read_dir(shared).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".json") {
            continue;
        }
        let json = std::fs::read(&path).unwrap();
        let passed = if name.contains(".exec.") {
            parse_process(&json).and_then(|process| validate_process(&process))
        } else {
            parse(&json).and_then(|spec| {
                assert_eq!(parse(&to_json(&spec).unwrap()).unwrap(), spec, "{name}");
                validate(&spec)
            })
        };
        passed.unwrap_or_else(|error| panic!("{name}: {error}"));
        read += 1;
    }
    assert!(read > 0);
}

/// Not a test: prints what reading and checking cost. Run with `--release -- --ignored`.
#[test]
#[ignore = "prints times, asserts nothing"]
fn times() {
    let document = |path: std::ffi::OsString| std::fs::read(path).unwrap();
    let own = crate::spec::Template::new("rootfs", ["sh"]).json().unwrap();
    let json = std::env::var_os("LOCULE_SPEC").map_or(own, document);
    let mut best = [std::time::Duration::MAX; 2];
    for _ in 0..2000 {
        let start = std::time::Instant::now();
        let spec = parse(&json).unwrap();
        best[0] = best[0].min(start.elapsed());
        let start = std::time::Instant::now();
        validate(&spec).unwrap();
        best[1] = best[1].min(start.elapsed());
    }
    println!("{} bytes: parse {:?}, validate {:?}", json.len(), best[0], best[1]);
}
