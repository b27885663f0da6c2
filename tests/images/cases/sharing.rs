//! One store, many users of it at once.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use locule::Category;
use locule::image::{Ids, ImageStore, Limits, PruneOptions, StoreOptions, TakeOptions, Transfer};
use locule_images::Layout;
use serde_json::json;

use super::{layers, load, scratch, store};

#[test]
fn many_take_name_and_prune_at_once_and_nothing_is_lost() {
    let dir = scratch();
    let first = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    layout.image(None, &layers(), json!({}));
    let (store_path, layout) = (dir.path(), layout.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..6)
            .map(|maker| {
                scope.spawn(move || {
                    // Each with a handle of its own, as another process has it.
                    let store = store(store_path);
                    for round in 0..10 {
                        let name = Some(format!("app{maker}:{round}"));
                        let options = TakeOptions { name, ..TakeOptions::default() };
                        let image = store.load(layout, &options, Transfer::default()).unwrap();
                        let tree = store_path.join(format!("tree{maker}.{round}"));
                        let (ids, limits) = (Ids::default(), Limits::default());
                        image.unpack(&tree, &ids, &limits, Transfer::default()).unwrap();
                        assert!(tree.join("etc/c").is_file());
                        if round % 2 == 1 {
                            store.remove(&format!("app{maker}:{round}")).unwrap();
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                first.prune(&PruneOptions::default(), Transfer::default()).unwrap();
            }
        });
        for maker in makers {
            maker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let images = first.list().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].names().len(), 30);
}

#[test]
fn a_store_that_is_only_read_gives_what_it_has_and_takes_nothing() {
    let dir = scratch();
    let writer = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    layout.image(Some("app"), &layers(), json!({}));
    load(&writer, layout.path()).unwrap();
    let options =
        StoreOptions { path: Some(writer.path().to_owned()), read_only: true, command: None };
    let reader = ImageStore::open(options).unwrap();
    let image = reader.get("app").unwrap();
    let tree = dir.path().join("tree");
    image.unpack(&tree, &Ids::default(), &Limits::default(), Transfer::default()).unwrap();
    assert!(tree.join("etc/b").is_file());
    let refused = [
        load(&reader, layout.path()).unwrap_err(),
        image.tag("other").unwrap_err(),
        reader.remove("app").unwrap_err(),
        reader.prune(&PruneOptions::default(), Transfer::default()).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.category(), Category::State, "{error}");
        assert!(error.to_string().contains("read-only"), "{error}");
    }
    let nowhere =
        StoreOptions { path: Some(dir.path().join("none")), read_only: true, command: None };
    assert_eq!(ImageStore::open(nowhere).unwrap_err().category(), Category::NotFound);
    let other = StoreOptions { path: Some(dir.path().to_owned()), read_only: true, command: None };
    assert_eq!(ImageStore::open(other).unwrap_err().category(), Category::NotFound);
}

#[test]
fn a_store_that_others_can_write_to_is_none() {
    let dir = scratch();
    let path = store(dir.path()).path().to_owned();
    let open = || {
        let options = StoreOptions { path: Some(path.clone()), ..StoreOptions::default() };
        ImageStore::open(options).map(drop)
    };
    open().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&path, mode).unwrap();
    let error = open().unwrap_err();
    assert_eq!(error.category(), Category::Permission, "{error}");
}
