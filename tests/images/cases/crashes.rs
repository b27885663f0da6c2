//! A process that works in a store is killed at any moment: what is there afterwards is whole, and
//! what it has left goes with the next prune.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use locule::image::{Ids, Limits, NewOptions, PruneOptions, SaveOptions, TakeOptions, Transfer};
use locule_images::{Layer, Layout, TarFile, look};
use serde_json::json;

use super::{load, scratch, store};

const WORK: &str = "LOCULE_TEST_CRASH_IN";

/// Not a test but what is killed by one: works in the store until it is.
#[test]
fn works_until_it_is_killed() {
    let Some(dir) = std::env::var_os(WORK) else { return };
    let dir = Path::new(&dir);
    let store = store(dir);
    println!("working");
    loop {
        let image = load(&store, &dir.join("layout")).unwrap();
        image.tag("again").unwrap();
        let tree = dir.join(format!("tree{}", std::process::id()));
        let (ids, limits) = (Ids::default(), Limits::default());
        image.unpack(&tree, &ids, &limits, Transfer::default()).unwrap();
        let name = Some("imported".to_owned());
        let options = NewOptions { name, ..NewOptions::default() };
        store.import(&tree, &options, Transfer::default()).unwrap();
        image.save(&dir.join("saved"), &SaveOptions::default(), Transfer::default()).unwrap();
        image.save(&dir.join("saved.tar"), &SaveOptions::default(), Transfer::default()).unwrap();
        fs::remove_dir_all(&tree).unwrap();
        store.remove("again").unwrap();
        store.remove("imported").unwrap();
        store.prune(&PruneOptions { all: true }, Transfer::default()).unwrap();
    }
}

#[test]
fn whenever_it_is_killed_the_store_is_whole_and_loses_nothing() {
    let dir = scratch();
    let mut layout = Layout::new(&dir.path().join("layout"));
    let tar = (0..200).fold(TarFile::new(), |tar, number| {
        tar.file(&format!("d{}/f{number}", number % 7), vec![number as u8; 3000])
    });
    layout.image(Some("app"), &[Layer::gzip(tar.finish())], json!({}));
    let mut layout = Layout::new(&dir.path().join("kept"));
    layout.image(Some("kept:1"), &super::layers(), json!({}));
    let rounds = std::env::var("LOCULE_KILLS").ok().and_then(|text| text.parse().ok());
    // A different moment each time, spread over a little more than what one round of work takes.
    for round in 0..rounds.unwrap_or(40u64) {
        let own = store(dir.path());
        load(&own, layout.path()).unwrap();
        let program = std::env::current_exe().unwrap();
        let mut worker = Command::new(program)
            .args(["--exact", "crashes::works_until_it_is_killed", "--nocapture"])
            .env(WORK, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(5_000 + round * 7_919 % 150_000));
        worker.kill().unwrap();
        let status = worker.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended by itself: {status}");

        let own = store(dir.path());
        for image in own.list().unwrap() {
            let tree = dir.path().join("look");
            let (ids, limits) = (Ids::default(), Limits::default());
            image.unpack(&tree, &ids, &limits, Transfer::default()).unwrap();
            assert!(look(&tree).len() > 2, "{:?}", image.names());
            fs::remove_dir_all(&tree).unwrap();
        }
        // What it saves is there whole, or not at all.
        for saved in ["saved", "saved.tar"] {
            let saved = dir.path().join(saved);
            if saved.join("oci-layout").exists() || saved.is_file() {
                let name = Some("from-saved".to_owned());
                let options = TakeOptions { name, ..TakeOptions::default() };
                own.load(&saved, &options, Transfer::default()).unwrap();
            }
        }
        own.prune(&PruneOptions { all: true }, Transfer::default()).unwrap();
        for part in ["drafts", "blobs/sha256", "layers", "uses"] {
            let left: BTreeSet<_> = fs::read_dir(own.path().join(part))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert!(left.is_empty(), "round {round}: {part}: {left:?}");
        }
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("tree") {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
    }
}
