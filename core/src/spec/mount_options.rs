//! The options of a mount, sorted by what the kernel wants to hear them as.
//!
//! With `mount(2)` one word carried attributes of the mount, of the filesystem and orders to
//! the system call. The new mount calls keep them apart, so the words are sorted here:
//! attributes go to `mount_setattr`, propagation to its own change, the rest to `fsconfig`.

use super::vocabulary;
use crate::error::{Category, Error, Result, Stage};

/// `MOUNT_ATTR_*` of `linux/mount.h`.
pub mod attribute {
    #![allow(missing_docs)] // the kernel's names, documented in mount_setattr(2)
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    /// The field that holds one of the three ways to keep access times.
    pub const ATIME_FIELD: u64 = 0x70;
    pub const RELATIME: u64 = 0x00;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// What the options of one mount ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `MOUNT_ATTR_*` bits to set on the mount.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear. With any option about access times this holds the whole
    /// field `MOUNT_ATTR__ATIME`: the kernel accepts no part of it.
    pub clear: u64,
    /// As `set`, for the mount and all below it.
    pub recursive_set: u64,
    /// As `clear`, for the mount and all below it.
    pub recursive_clear: u64,
    /// `MS_SHARED` and the like, perhaps with `MS_REC`; 0 for none. The last one counts.
    pub propagation: u64,
    /// What goes to `fsconfig`, one by one: flags of the superblock (`ro`, `sync`, `dirsync`,
    /// `lazytime`, `mand`, and their opposites for a remount), then everything that is no
    /// option of the specification, split at its commas. Empty for a bind mount.
    pub options: Vec<String>,
    /// A bind mount: `bind` or `rbind` is among the options.
    pub bind: bool,
    /// A bind mount for which attributes are listed: it has those and no others of its source, but
    /// for access times.
    pub only_these: bool,
    /// With the mounts below the source: `rbind` is among the options.
    pub recursive_bind: bool,
    /// Change a mount that is there.
    pub remount: bool,
    /// Copy what the mount hides into it.
    pub copy_up: bool,
    /// Map the ids of the mount, as the mappings of the mount or of the container say.
    pub idmap: bool,
    /// Map the ids of the mount and of all below it.
    pub recursive_idmap: bool,
}

/// Every option of the specification (and `rnodev`, which its table forgot), in order.
pub const ALL: [&str; 62] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// Sorts the options of a mount; `is_bind` says that it is a bind mount even if the options do
/// not. Contradicting options are fine: the last one counts, and at the top of a tree a recursive
/// one more than another.
///
/// A bind mount has no filesystem of its own to configure. Flags of the superblock are ignored
/// there, as the kernel does; any other word would change the host's filesystem or do nothing,
/// and is refused, with the pointer `/options/N` relative to the mount.
///
/// `silent`, `loud`, `iversion` and `noiversion` are accepted and have no effect: `fsconfig` has
/// no word for them, the first two only concern the kernel's log, and filesystems that count
/// versions do so on their own.
pub fn parse(options: &[String], is_bind: bool) -> Result<MountOptions> {
    sort(options, is_bind).map_err(|index| {
        Error::new(Category::Spec, Stage::Validate, refusal(&options[index]))
            .at(format!("/options/{index}"))
    })
}

/// Why an option of a bind mount is refused.
pub(super) fn refusal(option: &str) -> String {
    format!("{option:?} is no option a bind mount can have")
}

/// As [`parse`], with the index of the offending option as the error.
pub(super) fn sort(options: &[String], is_bind: bool) -> Result<MountOptions, usize> {
    let mut sorted = MountOptions::default();
    let (mut single, mut recursive) = (Attributes::default(), Attributes::default());
    let mut flags = SuperblockFlags::default();
    let mut data = Vec::new();
    for (index, option) in options.iter().enumerate() {
        let word = option.as_str();
        match word {
            "" | "defaults" | "silent" | "loud" | "iversion" | "noiversion" => {}
            "bind" => sorted.bind = true,
            "rbind" => (sorted.bind, sorted.recursive_bind) = (true, true),
            "remount" => sorted.remount = true,
            "tmpcopyup" => sorted.copy_up = true,
            "idmap" => sorted.idmap = true,
            "ridmap" => (sorted.idmap, sorted.recursive_idmap) = (true, true),
            _ => {
                if let Some(bits) = vocabulary::propagation(word) {
                    sorted.propagation = bits;
                    continue;
                }
                // `ro` and `rw` are of both kinds.
                let (of_mount, of_superblock) = (single.take(word), flags.take(word));
                let mut below = || word.strip_prefix('r').is_some_and(|word| recursive.take(word));
                if !of_mount && !of_superblock && !below() {
                    data.push((index, word));
                }
            }
        }
    }
    if (sorted.bind || is_bind) && !sorted.remount {
        sorted.only_these = single.set | single.clear != 0 || single.access_times.is_some();
        single.keep_access_times();
    }
    (sorted.set, sorted.clear) = single.bits();
    (sorted.recursive_set, sorted.recursive_clear) = recursive.bits();
    if sorted.bind || is_bind {
        sorted.bind = true;
        return data.first().map_or(Ok(sorted), |(index, _)| Err(*index));
    }
    sorted.options = flags.words(sorted.remount);
    sorted.options.extend(data.iter().flat_map(|(_, word)| split(word)));
    Ok(sorted)
}

/// Attributes of a mount, as they are collected from the words.
#[derive(Default)]
struct Attributes {
    set: u64,
    clear: u64,
    access_times: Option<AccessTimes>,
}

#[derive(Default)]
struct AccessTimes {
    never: bool,
    always: bool,
    /// Whether a word asked for a way, and did not only take one back.
    asked: bool,
}

impl Attributes {
    /// Takes a word if it is about attributes.
    fn take(&mut self, word: &str) -> bool {
        use attribute::*;
        let (bit, set) = match word {
            "ro" => (RDONLY, true),
            "rw" => (RDONLY, false),
            "nosuid" => (NOSUID, true),
            "suid" => (NOSUID, false),
            "nodev" => (NODEV, true),
            "dev" => (NODEV, false),
            "noexec" => (NOEXEC, true),
            "exec" => (NOEXEC, false),
            "nodiratime" => (NODIRATIME, true),
            "diratime" => (NODIRATIME, false),
            "nosymfollow" => (NOSYMFOLLOW, true),
            "symfollow" => (NOSYMFOLLOW, false),
            _ => return self.take_access_times(word),
        };
        if set {
            (self.set, self.clear) = (self.set | bit, self.clear & !bit);
        } else {
            (self.set, self.clear) = (self.set & !bit, self.clear | bit);
        }
        true
    }

    fn take_access_times(&mut self, word: &str) -> bool {
        let times = match word {
            "atime" | "noatime" | "relatime" | "norelatime" | "strictatime" | "nostrictatime" => {
                self.access_times.get_or_insert_with(AccessTimes::default)
            }
            _ => return false,
        };
        match word {
            "noatime" => *times = AccessTimes { never: true, always: false, asked: true },
            "strictatime" => *times = AccessTimes { never: false, always: true, asked: true },
            "relatime" => *times = AccessTimes { never: false, always: false, asked: true },
            "atime" => times.never = false,
            "nostrictatime" => times.always = false,
            // What is not relative is whatever else was asked for; the kernel knows no fourth way.
            _ => {}
        }
        true
    }

    /// Makes of the words what `mount` makes of them for a bind: one that only takes something back
    /// changes nothing, and any other decides about all of it.
    fn keep_access_times(&mut self) {
        let no_directories = self.set & attribute::NODIRATIME;
        if no_directories != 0 || self.access_times.as_ref().is_some_and(|times| times.asked) {
            self.access_times.get_or_insert_default();
            self.clear |= attribute::NODIRATIME & !no_directories;
        } else {
            self.access_times = None;
            self.clear &= !attribute::NODIRATIME;
        }
    }

    /// The bits to set and to clear.
    fn bits(&self) -> (u64, u64) {
        match &self.access_times {
            None => (self.set, self.clear),
            Some(times) => {
                let value = match times {
                    AccessTimes { always: true, .. } => attribute::STRICTATIME,
                    AccessTimes { never: true, .. } => attribute::NOATIME,
                    _ => attribute::RELATIME,
                };
                (self.set | value, self.clear | attribute::ATIME_FIELD)
            }
        }
    }
}

/// Flags of a superblock; `None` where no option speaks of one.
#[derive(Default)]
struct SuperblockFlags {
    read_only: Option<bool>,
    sync: Option<bool>,
    dirsync: Option<bool>,
    lazytime: Option<bool>,
    mand: Option<bool>,
}

impl SuperblockFlags {
    fn take(&mut self, word: &str) -> bool {
        match word {
            "ro" => self.read_only = Some(true),
            "rw" => self.read_only = Some(false),
            "sync" => self.sync = Some(true),
            "async" => self.sync = Some(false),
            "dirsync" => self.dirsync = Some(true),
            "lazytime" => self.lazytime = Some(true),
            "nolazytime" => self.lazytime = Some(false),
            "mand" => self.mand = Some(true),
            "nomand" => self.mand = Some(false),
            _ => return false,
        }
        true
    }

    /// The words for `fsconfig`. A new superblock has none of the flags, so only a remount has
    /// to say that it does not want one.
    fn words(&self, remount: bool) -> Vec<String> {
        [
            (self.read_only, "ro", "rw"),
            (self.sync, "sync", "async"),
            (self.dirsync, "dirsync", ""),
            (self.lazytime, "lazytime", "nolazytime"),
            (self.mand, "mand", "nomand"),
        ]
        .into_iter()
        .filter_map(|(wanted, on, off)| match wanted {
            Some(true) => Some(on.to_owned()),
            Some(false) if remount => Some(off.to_owned()),
            _ => None,
        })
        .collect()
    }
}

/// Splits data for a filesystem at its commas, for `fsconfig` takes one option at a time. Commas
/// in quotes (SELinux contexts) and after a backslash (overlay directories) do not separate;
/// the quotes were for `mount(2)` and are left out.
fn split(data: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in data.chars() {
        let last = parts.last_mut().expect("there is always a part");
        match c {
            '"' if !escaped => quoted = !quoted,
            ',' if !quoted && !escaped => parts.push(String::new()),
            _ => last.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
#[path = "mount_options_tests.rs"]
mod tests;
