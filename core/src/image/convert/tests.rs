use std::cell::RefCell;

use serde_json::{Value, json};

use super::*;
use crate::spec::{parse, validate};

const DIGEST: &str = "sha256:feed";

const PASSWD: &str = "\
# a remark:x:0:0:::
+::0:0:nis:/nis:
broken
half:x:1
minus:x:-5:5::/m:
plus:x:+5:5::/p:
point:x:5.5:5::/q:
large:x:4294967296:5::/r:
none:x:4294967295:5::/s:
space:x: 7:5::/t:
:x:9:9::/nobody:
root:x:0:0:root:/root:/bin/sh
www-data:x:33:34:www:/var/www:/usr/sbin/nologin
1000:x:77:77::/odd:
app:x:1000:1001:App,,,:/home/app:/bin/sh
second:x:1000:1002::/home/second:
homeless:x:1003:1003
relative:x:1004:1004::home:
last:x:4294967294:4294967294::/last:
";

const GROUP: &str = "\
root:x:0:
wheel:x:10:root,app
broken
bad:x:-3:app
bad2:x:4294967295:app
bad3:x:1.9:app
app:x:1001:app
www:x:34:
extra:x:50:other,app,third
part:x:51:apple,ap
again:x:10:app
55:x:56:
";

fn config(config: Value) -> ImageConfiguration {
    let document = json!({
        "os": "linux",
        "architecture": Arch::default().to_string(),
        "rootfs": { "type": "layers", "diff_ids": [] },
        "config": config,
    });
    serde_json::from_value(document).unwrap()
}

fn overrides(json: Value) -> Overrides {
    Overrides::from_json(json.to_string().as_bytes()).unwrap()
}

fn files(path: &str) -> Result<Option<Vec<u8>>> {
    Ok(match path {
        "etc/passwd" => Some(PASSWD.into()),
        "etc/group" => Some(GROUP.into()),
        other => panic!("{other} was read"),
    })
}

fn facts(ids: &Ids) -> Facts<'_> {
    Facts { root: "/store/top".into(), read: &files, rootless: None, ids, digest: DIGEST }
}

/// Converts, and checks that what comes is a configuration.
fn converted(image: &ImageConfiguration, own: &Overrides, facts: &Facts<'_>) -> Result<Value> {
    let json = convert(image, own, facts)?;
    validate(&parse(&json).unwrap()).unwrap();
    Ok(serde_json::from_slice(&json).unwrap())
}

fn of(image: Value, own: Value) -> Value {
    converted(&config(image), &overrides(own), &facts(&Ids::Same)).unwrap()
}

fn refused(image: Value, own: Value) -> Error {
    converted(&config(image), &overrides(own), &facts(&Ids::Same)).unwrap_err()
}

fn mounts_at<'a>(document: &'a Value, path: &str) -> Vec<&'a Value> {
    let mounts = document["mounts"].as_array().unwrap();
    mounts.iter().filter(|mount| mount["destination"] == path).collect()
}

/// With `sh` as the command, to which members are added.
fn sh(more: Value) -> Value {
    let mut all = json!({ "Cmd": ["sh"] });
    merge(&mut all, &more);
    all
}

#[test]
fn the_program_is_entrypoint_and_cmd_unless_the_caller_says_otherwise() {
    let both = json!({ "Entrypoint": ["/entry", "-v"], "Cmd": ["serve"] });
    for (image, own, wanted) in [
        (both.clone(), json!({}), json!(["/entry", "-v", "serve"])),
        (both.clone(), json!({ "args": ["x", "y"] }), json!(["/entry", "-v", "x", "y"])),
        (both.clone(), json!({ "args": [] }), json!(["/entry", "-v"])),
        (both.clone(), json!({ "entrypoint": ["e"] }), json!(["e"])),
        (both.clone(), json!({ "entrypoint": ["e"], "args": ["a"] }), json!(["e", "a"])),
        (both.clone(), json!({ "entrypoint": [], "args": ["a"] }), json!(["a"])),
        (both, json!({ "entrypoint": [""], "args": ["a"] }), json!(["a"])),
        (json!({ "Cmd": ["sh", "-c", ""] }), json!({}), json!(["sh", "-c", ""])),
        (json!({ "Entrypoint": [], "Cmd": ["sh"] }), json!({}), json!(["sh"])),
        (json!({ "Entrypoint": null, "Cmd": ["sh"] }), json!({}), json!(["sh"])),
        (json!({ "Entrypoint": [""], "Cmd": ["sh"] }), json!({}), json!(["sh"])),
        (json!({ "Entrypoint": ["sh"], "Cmd": null }), json!({}), json!(["sh"])),
        (Value::Null, json!({ "args": ["sh"] }), json!(["sh"])),
    ] {
        assert_eq!(of(image.clone(), own.clone())["process"]["args"], wanted, "{image} {own}");
    }
}

#[test]
fn with_nothing_to_run_the_error_says_what_is_empty() {
    for (image, own, words) in [
        (Value::Null, json!({}), "the image's Entrypoint and Cmd are empty"),
        (json!({ "Entrypoint": [], "Cmd": [] }), json!({}), "the image's Entrypoint and Cmd"),
        (json!({ "Cmd": ["x"] }), json!({ "args": [] }), "Entrypoint and the given `args` are"),
        (json!({ "Cmd": ["x"] }), json!({ "entrypoint": [] }), "the image's Cmd does not count"),
        (sh(json!({})), json!({ "entrypoint": [], "args": [] }), "`entrypoint` and `args` are"),
    ] {
        let error = refused(image, own);
        assert_eq!((error.category(), error.stage()), (Category::Invalid, Stage::Image));
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.advice().unwrap().contains("`args`"));
    }
}

#[test]
fn the_environment_is_the_images_then_the_callers_then_defaults() {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let image = json!(["A=1", "B=2", "PATH=/x"]);
    for (image, own, wanted) in [
        (json!([]), json!({}), json!([PATH, "HOME=/root"])),
        (image.clone(), json!({}), json!(["HOME=/root", "A=1", "B=2", "PATH=/x"])),
        (
            image.clone(),
            json!({ "env": ["A=9", "C=3", "C=4", "D="] }),
            json!(["HOME=/root", "A=9", "B=2", "PATH=/x", "C=4", "D="]),
        ),
        (image.clone(), json!({ "env": ["A", "AB"] }), json!(["HOME=/root", "B=2", "PATH=/x"])),
        (image.clone(), json!({ "env": ["PATH", "HOME"] }), json!(["A=1", "B=2"])),
        (
            image.clone(),
            json!({ "env": ["PATH", "PATH=/y"] }),
            json!(["HOME=/root", "A=1", "B=2", "PATH=/y"]),
        ),
        (
            image.clone(),
            json!({ "clearEnv": true, "env": ["Z=1"] }),
            json!([PATH, "HOME=/root", "Z=1"]),
        ),
        (json!(["HOME=/h", "PATH="]), json!({}), json!(["HOME=/h", "PATH="])),
        (json!(["A=1", "B=1", "A=2"]), json!({}), json!([PATH, "HOME=/root", "A=2", "B=1"])),
        (json!(["ODD", "=x", "", "A=b=c"]), json!({}), json!([PATH, "HOME=/root", "A=b=c"])),
        (
            json!([]),
            json!({ "terminal": true, "user": "app" }),
            json!([PATH, "TERM=xterm", "HOME=/home/app"]),
        ),
        (
            json!(["TERM=vt100"]),
            json!({ "terminal": true, "user": "5:5" }),
            json!([PATH, "HOME=/", "TERM=vt100"]),
        ),
        (json!([]), json!({ "terminal": true, "env": ["TERM"] }), json!([PATH, "HOME=/root"])),
    ] {
        let document = of(sh(json!({ "Env": image })), own.clone());
        assert_eq!(document["process"]["env"], wanted, "{image} {own}");
    }
    for (index, wrong) in [(0, json!(["=x"])), (1, json!(["A=1", ""]))] {
        let error = refused(sh(json!({})), json!({ "env": wrong }));
        assert_eq!(error.category(), Category::Invalid);
        assert!(error.to_string().contains(&format!("`env[{index}]`")), "{error}");
    }
}

#[test]
fn the_working_directory_is_absolute_or_refused() {
    for (image, own, wanted) in [
        (json!({}), json!({}), "/"),
        (json!({ "WorkingDir": "" }), json!({}), "/"),
        (json!({ "WorkingDir": "/srv/app" }), json!({}), "/srv/app"),
        (json!({ "WorkingDir": "/srv" }), json!({ "cwd": "/tmp" }), "/tmp"),
        (json!({ "WorkingDir": "srv" }), json!({ "cwd": "/tmp" }), "/tmp"),
    ] {
        assert_eq!(of(sh(image), own)["process"]["cwd"], wanted);
    }
    let error = refused(sh(json!({ "WorkingDir": "srv" })), json!({}));
    assert_eq!(error.category(), Category::Spec);
    assert!(error.to_string().contains("WorkingDir \"srv\""), "{error}");
    for wrong in ["srv", ""] {
        let error = refused(sh(json!({})), json!({ "cwd": wrong }));
        assert_eq!(error.category(), Category::Invalid);
        assert!(error.to_string().contains("`cwd`"), "{error}");
    }
}

#[test]
fn users_are_found_in_the_images_own_files() {
    for (text, uid, gid, groups, home) in [
        ("", 0, 0, json!([0, 10]), "/root"),
        ("root", 0, 0, json!([0, 10]), "/root"),
        ("0", 0, 0, json!([0, 10]), "/root"),
        (":", 0, 0, json!([0, 10]), "/root"),
        (":wheel", 0, 10, json!([10]), "/root"),
        ("root:", 0, 0, json!([0, 10]), "/root"),
        ("www-data", 33, 34, json!([34]), "/var/www"),
        ("app", 1000, 1001, json!([1001, 10, 50]), "/home/app"),
        ("1000", 1000, 1001, json!([1001, 10, 50]), "/home/app"),
        ("01000", 1000, 1001, json!([1001, 10, 50]), "/home/app"),
        ("second", 1000, 1002, json!([1002]), "/home/second"),
        ("app:www", 1000, 34, json!([34]), "/home/app"),
        ("app:0", 1000, 0, json!([0]), "/home/app"),
        ("1000:extra", 1000, 50, json!([50]), "/home/app"),
        ("app:55", 1000, 55, json!([55]), "/home/app"),
        ("12345", 12345, 0, json!([0]), "/"),
        ("12345:6", 12345, 6, json!([6]), "/"),
        ("12345:wheel", 12345, 10, json!([10]), "/"),
        ("homeless", 1003, 1003, json!([1003]), "/"),
        ("relative", 1004, 1004, json!([1004]), "/"),
        ("4294967294", 4294967294_u32, 4294967294_u32, json!([4294967294_u32]), "/last"),
        ("1:4294967294", 1, 4294967294, json!([4294967294_u32]), "/"),
    ] {
        for (image, own) in [
            (json!({ "User": text }), json!({})),
            (json!({ "User": "x" }), json!({ "user": text })),
        ] {
            let process = &of(sh(image), own)["process"];
            let wanted = json!({ "uid": uid, "gid": gid, "additionalGids": groups });
            assert_eq!(process["user"], wanted, "{text}");
            let env = process["env"].as_array().unwrap();
            assert!(env.contains(&json!(format!("HOME={home}"))), "{text}: {env:?}");
        }
    }
}

#[test]
fn a_user_that_nobody_is_names_the_file_and_the_name() {
    for (text, file, name) in [
        ("nobody", "/etc/passwd", "\"nobody\""),
        ("nobody:0", "/etc/passwd", "\"nobody\""),
        ("roo", "/etc/passwd", "\"roo\""),
        ("-1", "/etc/passwd", "\"-1\""),
        ("+", "/etc/passwd", "\"+\""),
        ("1.9", "/etc/passwd", "\"1.9\""),
        (" 5", "/etc/passwd", "\" 5\""),
        ("minus", "/etc/passwd", "\"minus\""),
        ("plus", "/etc/passwd", "\"plus\""),
        ("point", "/etc/passwd", "\"point\""),
        ("large", "/etc/passwd", "\"large\""),
        ("none", "/etc/passwd", "\"none\""),
        ("space", "/etc/passwd", "\"space\""),
        ("root:nobody", "/etc/group", "\"nobody\""),
        ("5:bad", "/etc/group", "\"bad\""),
        ("5:bad2", "/etc/group", "\"bad2\""),
        ("root:wheel:x", "/etc/group", "\"wheel:x\""),
    ] {
        let by_image = refused(sh(json!({ "User": text })), json!({}));
        assert_eq!(by_image.category(), Category::Spec, "{text}");
        assert!(by_image.to_string().contains("the image's User"), "{by_image}");
        let by_caller = refused(sh(json!({})), json!({ "user": text }));
        assert_eq!(by_caller.category(), Category::NotFound, "{text}");
        for error in [by_image, by_caller] {
            let words = error.to_string();
            assert!(words.contains(file) && words.contains(name), "{words}");
            assert_eq!(error.stage(), Stage::Image);
        }
    }
    for text in ["4294967295", "4294967296", "99999999999999999999", "0:4294967295"] {
        let by_image = refused(sh(json!({ "User": text })), json!({}));
        let by_caller = refused(sh(json!({})), json!({ "user": text }));
        assert_eq!(by_image.category(), Category::Spec, "{text}");
        assert_eq!(by_caller.category(), Category::Invalid, "{text}");
        assert!(by_caller.to_string().contains("is no id"), "{by_caller}");
    }
}

#[test]
fn an_image_without_files_of_users_runs_as_a_number_only() {
    let read = |_: &str| Ok(None);
    let facts = Facts { read: &read, ..facts(&Ids::Same) };
    for (user, uid) in [("", 0), ("0", 0), ("5:6", 5), ("7", 7)] {
        let image = config(sh(json!({ "User": user })));
        let document = converted(&image, &Overrides::default(), &facts).unwrap();
        assert_eq!(document["process"]["user"]["uid"], uid);
        assert!(document["process"]["env"].as_array().unwrap().contains(&json!("HOME=/")));
    }
    for (user, file) in [("root", "no /etc/passwd"), ("0:root", "no /etc/group")] {
        let image = config(sh(json!({ "User": user })));
        let error = converted(&image, &Overrides::default(), &facts).unwrap_err();
        assert!(error.to_string().contains(file), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_odd_bytes_are_not() {
    let fails = |_: &str| Err(Error::new(Category::Permission, Stage::Image, "etc/passwd"));
    let image = config(sh(json!({ "User": "app" })));
    let facts = Facts { read: &fails, ..facts(&Ids::Same) };
    let error = converted(&image, &Overrides::default(), &facts).unwrap_err();
    assert_eq!(error.category(), Category::Permission);
    let asked = RefCell::new(Vec::new());
    let odd = |path: &str| {
        asked.borrow_mut().push(path.to_owned());
        Ok(Some(b"a:x:1:1:\xff\xfe:/a\0b:\n\0\0:\napp:x:7:8:M\xfcller:/app:\r\n".to_vec()))
    };
    let facts = Facts { read: &odd, ..facts };
    let document = converted(&image, &Overrides::default(), &facts).unwrap();
    assert_eq!(document["process"]["user"]["uid"], 7);
    let image = config(sh(json!({ "User": "a" })));
    let document = converted(&image, &Overrides::default(), &facts).unwrap();
    assert!(document["process"]["env"].as_array().unwrap().contains(&json!("HOME=/")));
    assert!(asked.borrow().iter().all(|path| !path.starts_with('/')), "relative to the image");
}

#[test]
fn labels_and_fields_become_annotations() {
    let mut image = config(sh(json!({
        "Labels": { "com.example": "x", "org.opencontainers.image.author": "label", "empty": "" },
        "ExposedPorts": { "443/tcp": {}, "1080": {}, "53/udp": {} },
        "StopSignal": "SIGRTMIN+3",
    })));
    image.set_variant(Some("v8".to_owned()));
    image.set_author(Some("field".to_owned()));
    image.set_created(Some("2024-01-02T03:04:05Z".to_owned()));
    image.set_os_version(Some("1.2".to_owned()));
    image.set_os_features(Some(vec!["a".to_owned(), "b".to_owned()]));
    let document = converted(&image, &Overrides::default(), &facts(&Ids::Same)).unwrap();
    let wanted = json!({
        "com.example": "x",
        "empty": "",
        "org.opencontainers.image.architecture": Arch::default().to_string(),
        "org.opencontainers.image.author": "label",
        "org.opencontainers.image.base.digest": DIGEST,
        "org.opencontainers.image.created": "2024-01-02T03:04:05Z",
        "org.opencontainers.image.exposedPorts": "1080,443/tcp,53/udp",
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.os.features": "a,b",
        "org.opencontainers.image.os.version": "1.2",
        "org.opencontainers.image.stopSignal": "SIGRTMIN+3",
        "org.opencontainers.image.variant": "v8",
    });
    assert_eq!(document["annotations"], wanted);
    let text = document["annotations"].to_string();
    assert_eq!(text, wanted.to_string(), "they are in order, so that the text is always the same");
}

#[test]
fn the_callers_annotations_win_over_all_but_the_digest_and_ours_over_labels() {
    const STOP: &str = "org.opencontainers.image.stopSignal";
    const BASE: &str = crate::image::handle::BASE_DIGEST;
    let labels = json!({ "Labels": { "a": "label", BASE: "label", STOP: "label" } });
    let of = |own: Value| of(sh(labels.clone()), own)["annotations"].clone();
    let plain = of(json!({}));
    assert_eq!(
        (&plain["a"], &plain[BASE], &plain[STOP]),
        (&json!("label"), &json!(DIGEST), &json!("label"))
    );
    let own = of(json!({ "annotations": { "a": "own", BASE: "own", "b": "" }, "stopSignal": "9" }));
    assert_eq!((&own["a"], &own[BASE], &own[STOP]), (&json!("own"), &json!(DIGEST), &json!("9")));
    assert_eq!(own["b"], "");
    let error = refused(sh(json!({})), json!({ "annotations": { "": "x" } }));
    assert_eq!(error.category(), Category::Invalid);
}

#[test]
fn labels_cannot_tell_the_runtime_what_to_do() {
    let labels = json!({
        "org.systemd.property.ExecStopPost": "'x'",
        "run.oci.keep_original_groups": "1",
        "org.criu.config": "/x",
        "": "x",
        "org.systemd": "fine",
    });
    let document = of(sh(json!({ "Labels": labels })), json!({}));
    let keys: Vec<_> = document["annotations"].as_object().unwrap().keys().collect();
    assert!(keys.iter().all(|key| key.starts_with("org.opencontainers") || *key == "org.systemd"));
    let own = json!({ "annotations": { "run.oci.keep_original_groups": "1" } });
    let document = of(sh(json!({})), own);
    assert_eq!(document["annotations"]["run.oci.keep_original_groups"], "1", "the caller can");
}

#[test]
fn a_stop_signal_that_is_none_is_refused() {
    let image = sh(json!({ "StopSignal": "SIGNOTHING" }));
    let error = refused(image.clone(), json!({}));
    assert_eq!(error.category(), Category::Spec);
    assert!(error.to_string().contains("StopSignal \"SIGNOTHING\""), "{error}");
    let error = refused(sh(json!({})), json!({ "stopSignal": "65" }));
    assert_eq!(error.category(), Category::Invalid);
    let document = of(image, json!({ "stopSignal": "QUIT" }));
    assert_eq!(document["annotations"]["org.opencontainers.image.stopSignal"], "QUIT");
    let document = of(sh(json!({ "StopSignal": "" })), json!({}));
    assert!(document["annotations"]["org.opencontainers.image.stopSignal"].is_null());
}

#[test]
fn volumes_of_a_read_only_root_are_in_memory_with_what_the_image_has_there() {
    let image = sh(json!({ "Volumes": {
        "/var/lib/db/": {}, "/data": {}, "/data/inner": {}, "/x/../data": {}, "/tmp": {},
        "/sys/fs/cgroup": {}, "/x/../proc/sys": {}, "/": {}, "/bound/below": {},
    } }));
    let writable = of(image.clone(), json!({}));
    for path in ["/data", "/var/lib/db", "/tmp"] {
        assert!(mounts_at(&writable, path).is_empty(), "{path}");
    }
    let own = json!({ "readonly": true, "mounts": [{ "source": "/srv", "target": "/bound" }] });
    let document = of(image, own);
    assert_eq!(document["root"]["readonly"], true);
    let destinations: Vec<_> = document["mounts"].as_array().unwrap()[7..]
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect();
    assert_eq!(destinations, ["/tmp", "/data", "/data/inner", "/var/lib/db", "/bound"]);
    let [data] = mounts_at(&document, "/data")[..] else { panic!() };
    assert_eq!(data["type"], "tmpfs");
    assert_eq!(data["options"], json!(["nosuid", "nodev", "tmpcopyup"]));
    let [tmp] = mounts_at(&document, "/tmp")[..] else { panic!() };
    assert_eq!(tmp["options"], json!(["nosuid", "nodev", "tmpcopyup", "mode=1777"]));
    let [cgroup] = mounts_at(&document, "/sys/fs/cgroup")[..] else { panic!() };
    assert_eq!(cgroup["type"], "cgroup");
    let error = refused(sh(json!({ "Volumes": { "data": {} } })), json!({ "readonly": true }));
    assert_eq!(error.category(), Category::Spec);
    assert!(error.to_string().contains("\"data\""), "{error}");
}

#[test]
fn binds_are_absolute_and_come_last() {
    let document = of(
        sh(json!({})),
        json!({ "mounts": [
            { "source": "/srv", "target": "/a", "readonly": true },
            { "source": "some/where", "target": "/tmp" },
        ] }),
    );
    let [a] = mounts_at(&document, "/a")[..] else { panic!() };
    assert_eq!(a["source"], "/srv");
    assert_eq!(a["options"], json!(["rbind", "rprivate", "ro"]));
    let [tmp] = mounts_at(&document, "/tmp")[..] else { panic!() };
    let here = std::env::current_dir().unwrap();
    assert_eq!(tmp["source"], here.join("some/where").to_str().unwrap());
    assert_eq!(tmp["options"], json!(["rbind", "rprivate", "rw"]));
    let mount = |source: &str, target: &str| json!({ "source": source, "target": target });
    for (wrong, field) in [
        (json!([mount("/a", "b")]), "`mounts[0].target`"),
        (json!([mount("/a", "/b"), mount("/a", "")]), "`mounts[1].target`"),
        (json!([mount("", "/b")]), "`mounts[0].source`"),
    ] {
        let error = refused(sh(json!({})), json!({ "mounts": wrong }));
        assert_eq!(error.category(), Category::Invalid);
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn the_rest_goes_through_the_template() {
    let document = of(
        sh(json!({})),
        json!({
            "hostname": "box", "hostNetwork": true, "memory": 1048576, "cpus": 1.5, "pids": 7,
            "terminal": true, "terminalSize": [24, 80],
        }),
    );
    assert_eq!(document["root"]["path"], "/store/top");
    assert_eq!(document["root"]["readonly"], false);
    assert_eq!(document["hostname"], "box");
    let namespaces = document["linux"]["namespaces"].as_array().unwrap();
    assert!(!namespaces.iter().any(|n| n["type"] == "network" || n["type"] == "user"));
    let resources = &document["linux"]["resources"];
    assert_eq!(resources["memory"]["limit"], 1048576);
    assert_eq!(resources["cpu"]["quota"], 150_000);
    assert_eq!(resources["pids"]["limit"], 7);
    assert_eq!(document["process"]["terminal"], true);
    assert_eq!(document["process"]["consoleSize"], json!({ "height": 24, "width": 80 }));
    let plain = of(sh(json!({})), json!({ "terminalSize": [24, 80] }));
    assert_eq!(plain["hostname"], "locule");
    assert!(plain["process"]["consoleSize"].is_null());
    for (field, wrong) in [
        ("memory", json!({ "memory": 0 })),
        ("cpus", json!({ "cpus": 0.0 })),
        ("cpus", json!({ "cpus": -1.0 })),
        ("pids", json!({ "pids": 0 })),
        ("patch", json!({ "patch": [1] })),
    ] {
        let error = refused(sh(json!({})), wrong);
        assert_eq!(error.category(), Category::Invalid);
        assert!(error.to_string().starts_with(&format!("`{field}`")), "{error}");
    }
    let cpus = Overrides { cpus: Some(f64::NAN), ..Overrides::default() };
    assert!(convert(&config(sh(json!({}))), &cpus, &facts(&Ids::Same)).is_err());
}

#[test]
fn the_patch_comes_after_all_else() {
    let own = json!({ "hostname": "a", "patch": {
        "hostname": "b",
        "process": { "oomScoreAdj": 5, "capabilities": null },
        "annotations": { "com.example": null, "new": "1" },
    } });
    let document = of(sh(json!({ "Labels": { "com.example": "x" } })), own);
    assert_eq!(document["hostname"], "b");
    assert_eq!(document["process"]["oomScoreAdj"], 5);
    assert_eq!(document["process"]["args"], json!(["sh"]));
    assert!(document["process"].get("capabilities").is_none());
    assert!(document["annotations"].get("com.example").is_none());
    assert_eq!(document["annotations"]["new"], "1");
}

#[test]
fn ids_decide_about_the_user_namespace() {
    let image = config(sh(json!({ "User": "app" })));
    let none = Overrides::default();
    let user_namespace = |document: &Value| {
        let namespaces = document["linux"]["namespaces"].as_array().unwrap();
        namespaces.iter().any(|namespace| namespace["type"] == "user")
    };
    for ids in [Ids::Same, Ids::Caller] {
        let document = converted(&image, &none, &facts(&ids)).unwrap();
        assert!(!user_namespace(&document));
        assert_eq!(document["process"]["user"]["additionalGids"], json!([1001, 10, 50]));

        let rootless = Facts { rootless: Some((2000, 2001)), ..facts(&ids) };
        let document = converted(&image, &none, &rootless).unwrap();
        assert!(user_namespace(&document));
        let single =
            |inside, outside| json!([{ "containerID": inside, "hostID": outside, "size": 1 }]);
        assert_eq!(document["linux"]["uidMappings"], single(1000, 2000));
        assert_eq!(document["linux"]["gidMappings"], single(1001, 2001));
        assert_eq!(document["process"]["user"], json!({ "uid": 1000, "gid": 1001 }));
    }

    let range = |inside, outside, count| IdRange { inside, outside, count };
    let mapped = Ids::Mapped {
        uids: vec![range(0, 2000, 1), range(1, 100_000, 65535)],
        gids: vec![range(0, 2001, 1), range(11, 100_011, 65525)],
    };
    for rootless in [None, Some((2000, 2001))] {
        let facts = Facts { rootless, ..facts(&mapped) };
        let document = converted(&image, &none, &facts).unwrap();
        let wanted = json!([
            { "containerID": 0, "hostID": 2000, "size": 1 },
            { "containerID": 1, "hostID": 100_000, "size": 65535 },
        ]);
        assert!(user_namespace(&document));
        assert_eq!(document["linux"]["uidMappings"], wanted);
        assert_eq!(document["process"]["user"]["additionalGids"], json!([1001, 50]));
        let [devpts] = mounts_at(&document, "/dev/pts")[..] else { panic!() };
        assert!(!devpts["options"].as_array().unwrap().contains(&json!("gid=5")));
    }
}

#[test]
fn an_id_outside_of_the_ranges_is_refused_and_one_range_of_one_sets_no_groups() {
    let range = |inside, count| vec![IdRange { inside, outside: 100_000, count }];
    for (uids, gids, words) in [
        (range(0, 1000), range(0, 65536), "user 1000"),
        (range(0, 65536), range(0, 1001), "group 1001"),
        (vec![], vec![], "user 1000"),
    ] {
        let ids = Ids::Mapped { uids, gids };
        let image = config(sh(json!({ "User": "app" })));
        let error = converted(&image, &Overrides::default(), &facts(&ids)).unwrap_err();
        assert_eq!(error.category(), Category::Invalid);
        assert!(error.to_string().contains(words), "{error}");
    }
    let ids = Ids::Mapped { uids: range(1000, 1), gids: range(1001, 1) };
    let image = config(sh(json!({ "User": "app" })));
    let facts = Facts { rootless: Some((100_000, 100_000)), ..facts(&ids) };
    let document = converted(&image, &Overrides::default(), &facts).unwrap();
    assert!(document["process"]["user"].get("additionalGids").is_none());
}

#[test]
fn only_linux_images_run_here() {
    let mut image = config(sh(json!({})));
    image.set_architecture(Arch::PowerPC);
    converted(&image, &Overrides::default(), &facts(&Ids::Same)).unwrap();
    image.set_os(Os::Windows);
    let error = converted(&image, &Overrides::default(), &facts(&Ids::Same)).unwrap_err();
    assert_eq!(error.category(), Category::Unsupported);
    let (words, own) = (error.to_string(), format!("linux/{}", Arch::default()));
    assert!(words.contains("windows/ppc") && words.contains(&own), "{words}");
}

#[test]
fn overrides_that_are_wrong_name_the_field() {
    for (json, words) in [
        (r#"{"argz":["x"]}"#, "`argz`: unknown field `argz`"),
        (
            r#"{"memory":"1g"}"#,
            "`memory`: invalid type: string \"1g\", expected a whole number, 0 or more",
        ),
        (r#"{"memory":-1}"#, "`memory`: invalid value"),
        (r#"{"args":"sh"}"#, "`args`: invalid type: string \"sh\", expected an array"),
        (r#"{"hostname":"x","env":[1]}"#, "`env`: invalid type"),
        (r#"{"mounts":[{"source":"/x"}]}"#, "`mounts`: missing field `target`"),
        (r#"{"mounts":[{"source":"/x","target":"/y","ro":true}]}"#, "unknown field `ro`"),
        (r#"{"terminalSize":[24]}"#, "`terminalSize`: invalid length 1"),
        (r#"{"terminalSize":[24,70000]}"#, "`terminalSize`: invalid value"),
        (r#"{"annotations":{"a":1}}"#, "`annotations`: invalid type"),
        (r#"{"cwd":"/a","cwd":"/b"}"#, "duplicate field `cwd`"),
        ("{", "EOF while parsing"),
        ("", "EOF while parsing"),
        ("[]", "no JSON object"),
        (r#"[["sh"]]"#, "no JSON object"),
        ("7", "invalid type"),
        (r#"{} x"#, "trailing characters"),
    ] {
        let error = Overrides::from_json(json.as_bytes()).unwrap_err();
        assert_eq!((error.category(), error.stage()), (Category::Invalid, Stage::Image), "{json}");
        assert!(error.to_string().contains(words), "{json}: {error}");
    }
    let none = Overrides::default();
    let nulls = r#"{"args":null,"patch":null,"env":null,"readonly":null,"annotations":null}"#;
    for json in ["{}", " {} ", nulls] {
        assert_eq!(Overrides::from_json(json.as_bytes()).unwrap(), none, "{json}");
    }
}

/// What `podman run` (4.3) makes of these two: the program, the directory, the user with all groups, and
/// the variables but for those about podman. Only that root's own group is among its others is Docker's.
#[test]
fn images_run_as_other_engines_run_them() {
    const DEBIAN: &str =
        "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:,,,:/var/lib/pg:/bin/bash\n";
    const DEBIAN_GROUPS: &str = "root:x:0:\nssl-cert:x:103:postgres\npostgres:x:104:\n";
    let debian = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/pg/bin", "PGDATA=/data"],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["postgres"],
        "User": "postgres",
        "WorkingDir": "/srv/pg",
        "Volumes": { "/data": {} },
        "ExposedPorts": { "5432/tcp": {} },
        "StopSignal": "SIGINT",
    });
    const BUSYBOX: &str = "root:x:0:0:root:/root:/bin/sh\n";
    const BUSYBOX_GROUPS: &str = "root:x:0:\nwheel:x:10:root\n";
    let busybox = json!({ "Cmd": ["sh"] });
    for (image, files, wanted) in [
        (
            debian,
            (DEBIAN, DEBIAN_GROUPS),
            json!({
                "args": ["docker-entrypoint.sh", "postgres"],
                "cwd": "/srv/pg",
                "user": { "uid": 101, "gid": 104, "additionalGids": [104, 103] },
                "env": ["HOME=/var/lib/pg", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/pg/bin", "PGDATA=/data"],
            }),
        ),
        (
            busybox,
            (BUSYBOX, BUSYBOX_GROUPS),
            json!({
                "args": ["sh"],
                "cwd": "/",
                "user": { "uid": 0, "gid": 0, "additionalGids": [0, 10] },
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
            }),
        ),
    ] {
        let read = |path: &str| {
            let (passwd, group) = files;
            Ok(Some(if path == "etc/passwd" { passwd } else { group }.into()))
        };
        let facts = Facts { read: &read, ..facts(&Ids::Same) };
        let document = converted(&config(image), &Overrides::default(), &facts).unwrap();
        for (member, value) in wanted.as_object().unwrap() {
            assert_eq!(&document["process"][member], value, "{member}");
        }
    }
}
