use super::attribute::*;
use super::*;

fn options(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn read(words: &[&str]) -> MountOptions {
    parse(&options(words), false).unwrap()
}

#[test]
fn every_option_of_the_specification_is_known_and_none_reaches_the_filesystem_as_data() {
    let superblock = ["ro", "sync", "dirsync", "lazytime", "mand"];
    for word in ALL {
        let sorted = read(&[word]);
        let allowed = superblock.contains(&word);
        assert!(sorted.options.is_empty() || allowed, "{word}: {:?}", sorted.options);
        parse(&options(&["rbind", word]), true).unwrap();
    }
}

#[test]
fn ro_of_a_new_mount_is_of_the_mount_and_of_the_superblock() {
    let sorted = read(&["nosuid", "ro"]);
    assert_eq!((sorted.set, sorted.clear), (RDONLY | NOSUID, 0));
    assert_eq!(sorted.options, ["ro"]);
}

#[test]
fn ro_of_a_bind_mount_is_of_the_mount_alone() {
    let sorted = read(&["rbind", "ro", "sync"]);
    assert_eq!((sorted.set, sorted.recursive_set), (RDONLY, 0));
    assert!(sorted.options.is_empty());
    assert!(sorted.bind && sorted.recursive_bind);
}

#[test]
fn the_last_of_contradicting_options_counts() {
    let sorted = read(&["ro", "rw", "suid", "nosuid", "sync", "async"]);
    assert_eq!((sorted.set, sorted.clear), (NOSUID, RDONLY));
    assert!(sorted.options.is_empty());
    assert_eq!(read(&["shared", "rslave"]).propagation, libc::MS_SLAVE | libc::MS_REC);
}

#[test]
fn access_times_are_one_field_that_is_cleared_whole() {
    for (words, value) in [
        (&["noatime"][..], NOATIME),
        (&["strictatime"], STRICTATIME),
        (&["relatime"], RELATIME),
        (&["noatime", "atime"], RELATIME),
        (&["noatime", "strictatime"], STRICTATIME),
        (&["strictatime", "nostrictatime"], RELATIME),
        (&["norelatime"], RELATIME),
        (&["noatime", "norelatime"], NOATIME),
    ] {
        let sorted = read(words);
        assert_eq!((sorted.set, sorted.clear), (value, ATIME_FIELD), "{words:?}");
    }
    let directories = read(&["nodiratime"]);
    assert_eq!((directories.set, directories.clear), (NODIRATIME, 0));
}

#[test]
fn recursive_options_stay_apart_from_the_others() {
    let sorted = read(&["rbind", "rro", "rnoatime", "nodev", "rexec"]);
    assert_eq!((sorted.set, sorted.clear), (NODEV, 0));
    assert_eq!(sorted.recursive_set, RDONLY | NOATIME);
    assert_eq!(sorted.recursive_clear, NOEXEC | ATIME_FIELD);
    assert_eq!(read(&["rnodev"]).recursive_set, NODEV);
    assert_eq!(read(&["rnosymfollow"]).recursive_set, NOSYMFOLLOW);
}

#[test]
fn a_remount_says_what_it_does_not_want() {
    assert_eq!(read(&["remount", "rw", "async"]).options, ["rw", "async"]);
}

#[test]
fn data_goes_to_the_filesystem_one_by_one() {
    let sorted = read(&["mode=755,size=64k", "gid=5", "context=\"a:b:c1,c2\"", "lowerdir=a\\,b:c"]);
    assert_eq!(
        sorted.options,
        ["mode=755", "size=64k", "gid=5", "context=a:b:c1,c2", "lowerdir=a\\,b:c"]
    );
}

#[test]
fn data_on_a_bind_mount_is_refused_with_its_place() {
    let error = parse(&options(&["bind", "size=1"]), true).unwrap_err();
    assert_eq!(error.pointer(), Some("/options/1"));
    assert!(error.to_string().contains("\"size=1\""), "{error}");
    for word in ["rrandom", "rsync", "rrprivate", "rr"] {
        assert!(parse(&options(&["bind", word]), true).is_err(), "{word}");
    }
}
