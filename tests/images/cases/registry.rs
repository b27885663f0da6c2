//! A real registry, in the same room with skopeo.

use std::fs;

use locule::Category;
use locule::image::{RegistryOptions, TakeOptions, Transfer};
use locule_images::{Layout, Registry, Security, tool};
use serde_json::json;

use super::commits::{image, run, runtime};
use super::{layers, load, scratch, store};

fn take() -> TakeOptions {
    TakeOptions::default()
}

#[test]
fn what_we_push_skopeo_reads_and_what_it_pushes_we_pull() {
    let dir = scratch();
    let dir = dir.path();
    let Some(registry) = Registry::start(&dir.join("registry"), Security::None) else { return };
    let Some(skopeo) = tool("skopeo") else { return };
    let own = store(dir);
    let Some(image) = image(&own, dir) else { return };
    let options = RegistryOptions::default();
    let name = registry.name("ours/box:1");
    image.push(&name, &options, Transfer::default()).unwrap();
    let there = format!("docker://{name}");
    let seen = skopeo.run(dir, ["inspect", "--tls-verify=false", &there]);
    assert!(seen.contains(image.digest()), "{seen}");
    skopeo.run(dir, ["copy", "-q", "--src-tls-verify=false", &there, "oci:copied:it"]);

    // What is there is not sent again, not even under another tag.
    let sent = registry.requests(&["PUT", "/blobs/uploads/"]);
    assert_eq!(sent, 3);
    image.push(&name, &options, Transfer::default()).unwrap();
    image.push(&registry.name("ours/box:2"), &options, Transfer::default()).unwrap();
    assert_eq!(registry.requests(&["PUT", "/blobs/uploads/"]), sent);
    assert_eq!(registry.requests(&["POST", "/blobs/uploads/"]), 3);

    // And back, by tag and by digest, into a store that has nothing.
    let theirs = format!("docker://{}", registry.name("theirs/box:x"));
    skopeo.run(dir, ["copy", "-q", "--dest-tls-verify=false", "oci:copied:it", &theirs]);
    let other = dir.join("other");
    fs::create_dir(&other).unwrap();
    let other = store(&other);
    let pulled =
        other.pull(&registry.name("theirs/box:x"), &take(), &options, Transfer::default()).unwrap();
    assert_eq!(pulled.digest(), image.digest());
    assert_eq!(pulled.names(), [registry.name("theirs/box:x")]);
    assert_eq!(run(&runtime(dir), &pulled, Default::default()), "default\n");
    let fetched = registry.requests(&["GET", "/theirs/box/blobs/", "locule"]);
    assert_eq!(fetched, 3);
    let by_digest = registry.name(&format!("theirs/box@{}", image.digest()));
    let again = other.pull(&by_digest, &take(), &options, Transfer::default()).unwrap();
    assert_eq!(again.digest(), image.digest());
    assert_eq!(registry.requests(&["GET", "/theirs/box/blobs/", "locule"]), fetched);

    let missing = [
        registry.name("theirs/box:none"),
        registry.name("nobody/nothing:1"),
        registry.name(&format!("theirs/box@sha256:{}", "0".repeat(64))),
    ];
    for name in missing {
        let error = other.pull(&name, &take(), &options, Transfer::default()).unwrap_err();
        assert_eq!(error.category(), Category::NotFound, "{name}: {error}");
    }
}

#[test]
fn with_tls_and_a_password_only_who_has_both_comes_in() {
    let dir = scratch();
    let dir = dir.path();
    let Some(registry) = Registry::start(&dir.join("registry"), Security::Full) else { return };
    let own = store(dir);
    let mut layout = Layout::new(&dir.join("layout"));
    layout.image(Some("app"), &layers(), json!({}));
    let image = load(&own, layout.path()).unwrap();
    let auth_file = Some(dir.join("none.json"));
    fs::write(dir.join("none.json"), "{}").unwrap();
    let with = |user: Option<&str>| RegistryOptions {
        credentials: user.map(|password| ("user".to_owned(), password.to_owned())),
        auth_file: auth_file.clone(),
        ca_file: Some(registry.certificate()),
        ..RegistryOptions::default()
    };
    let name = registry.name("app:1");
    for wrong in [None, Some("guess")] {
        let error = image.push(&name, &with(wrong), Transfer::default()).unwrap_err();
        assert_eq!(error.category(), Category::Permission, "{error}");
        let error = own.pull(&name, &take(), &with(wrong), Transfer::default()).unwrap_err();
        assert_eq!(error.category(), Category::Permission, "{error}");
    }
    let unknown = RegistryOptions { ca_file: None, ..with(Some("secret")) };
    let error = image.push(&name, &unknown, Transfer::default()).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    image.push(&name, &with(Some("secret")), Transfer::default()).unwrap();
    let error = own
        .pull(&registry.name("app:2"), &take(), &with(Some("secret")), Transfer::default())
        .unwrap_err();
    assert_eq!(error.category(), Category::NotFound, "{error}");
    let pulled = own.pull(&name, &take(), &with(Some("secret")), Transfer::default()).unwrap();
    assert_eq!(pulled.digest(), image.digest());

    // With what skopeo has logged in.
    let Some(skopeo) = tool("skopeo") else { return };
    let (host, _) = name.split_once('/').unwrap();
    let login = ["login", "--authfile", "auth.json", "--tls-verify=false"];
    skopeo.run(dir, login.iter().chain(&["-u", "user", "-p", "secret", host]));
    let there = format!("docker://{name}");
    let inspect = ["inspect", "--authfile", "auth.json", "--tls-verify=false", &there];
    assert!(skopeo.run(dir, inspect).contains(image.digest()));
    let options = RegistryOptions { auth_file: Some(dir.join("auth.json")), ..with(None) };
    let pulled = own.pull(&name, &take(), &options, Transfer::default()).unwrap();
    assert_eq!(pulled.digest(), image.digest());
}
