//! Unpacked layers seen as one tree, as overlayfs would show it. Nothing outside of them is looked at.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstatat};

use super::xattr;
use crate::{Category, Error, Result, Stage};

/// As many links as the kernel follows.
pub(super) const LINKS: usize = 40;

/// In so many directories of layers a path is looked for, and no longer: for each `..` of a link that begins at
/// the root again. It is enough for 2,000 directories that 128 layers have.
const LOOKUPS: usize = 1 << 18;

/// The marks of an opaque directory, behind which nothing of lower layers is seen.
pub(super) const OPAQUE: [&std::ffi::CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];

pub(super) const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Reads a small file of layers, the topmost first. Links are followed, within the tree. `None` if there is
/// none; an error if it is no regular file or larger than `limit`.
pub(super) fn read_file(layers: &[File], path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let fail = |errno| Error::os(Stage::Image, errno as i32, format!("read {path:?} of the image"));
    let wrong = |what: String| {
        Error::new(Category::Spec, Stage::Image, format!("{path:?} of the image {what}"))
    };
    let tree = Tree::new(layers.iter().map(File::as_fd));
    let found = match tree.find(path.as_bytes(), true) {
        Ok(None) => return Ok(None),
        Ok(Some(found)) => found,
        Err(Errno::ELOOP) => return Err(wrong(format!("is {}", too_far()))),
        Err(errno) => return Err(fail(errno)),
    };
    let file = match found {
        Found::Other(node) if kind(&node.stat) == libc::S_IFREG => {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            File::from(openat(&node.dir, &node.name[..], flags, Mode::empty()).map_err(fail)?)
        }
        _ => return Err(wrong("is no regular file".to_owned())),
    };
    let metadata = file.metadata();
    let metadata =
        metadata.map_err(|error| Error::io(Stage::Image, &error, format!("{path:?}")))?;
    if !metadata.is_file() {
        return Err(wrong("is no regular file".to_owned()));
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(limit) as usize);
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io(Stage::Image, &error, format!("read {path:?} of the image")))?;
    if bytes.len() as u64 > limit {
        return Err(wrong(format!("has more than {limit} bytes")).with_category(Category::Resource));
    }
    Ok(Some(bytes))
}

/// What `ELOOP` means here.
pub(super) fn too_far() -> String {
    format!("behind more than {LINKS} links, or too many directories")
}

pub(super) fn kind(stat: &FileStat) -> libc::mode_t {
    stat.st_mode & libc::S_IFMT
}

/// What overlayfs takes for the mark that something of lower layers is gone.
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == libc::S_IFCHR && stat.st_rdev == 0
}

pub(super) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    for name in OPAQUE {
        match xattr::get(xattr::Of::File(dir), name) {
            Ok(Some(value)) if value == b"y" => return Ok(true),
            // A directory that may not be read keeps its marks to itself.
            Ok(_) | Err(Errno::EBADF) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

/// Layers, the topmost first.
pub(super) struct Tree<'a>(Vec<BorrowedFd<'a>>);

/// A directory by the numbers of the layers that it is in, the topmost first.
pub(super) type Opened = Vec<(usize, OwnedFd)>;

/// A directory of the tree.
pub(super) struct Directory {
    pub(super) layers: Opened,
    /// Where it is, without links.
    pub(super) path: Vec<Vec<u8>>,
}

/// What is no directory.
pub(super) struct Node {
    /// The number of its layer.
    pub(super) layer: usize,
    /// The directory it is in, in its layer.
    pub(super) dir: OwnedFd,
    /// Where that is, without links.
    pub(super) path: Vec<Vec<u8>>,
    pub(super) name: Vec<u8>,
    pub(super) stat: FileStat,
}

pub(super) enum Found {
    Directory(Directory),
    /// A link only if links were not to be followed.
    Other(Node),
}

/// What is in a directory.
pub(super) enum Child {
    Directory(Opened),
    /// In the layer at this place of the list.
    Other(usize, FileStat),
}

impl<'a> Tree<'a> {
    pub(super) fn new(layers: impl Iterator<Item = BorrowedFd<'a>>) -> Tree<'a> {
        Tree(layers.collect())
    }

    /// Looks up a path. Links in it are followed within the tree, its last component only if `follow`.
    /// `ELOOP` after too many of them, or of directories.
    pub(super) fn find(&self, path: &[u8], follow: bool) -> Result<Option<Found>, Errno> {
        let mut left = LOOKUPS;
        let left = &mut left;
        let mut dir = self.root(left)?;
        let mut links = 0;
        let mut rest: Vec<Vec<u8>> = Vec::new();
        push(&mut rest, path);
        while let Some(name) = rest.pop() {
            match &name[..] {
                b"." => continue,
                b".." => {
                    let mut path = std::mem::take(&mut dir.path);
                    path.pop();
                    match self.reopen(path, left)? {
                        Some(parent) => dir = parent,
                        None => return Ok(None),
                    }
                    continue;
                }
                _ => {}
            }
            match look_up(&dir.layers, &name, left)? {
                None => return Ok(None),
                Some(Child::Directory(layers)) => {
                    dir.layers = layers;
                    dir.path.push(name);
                }
                Some(Child::Other(at, stat)) => {
                    if kind(&stat) == libc::S_IFLNK && (follow || !rest.is_empty()) {
                        links += 1;
                        if links > LINKS {
                            return Err(Errno::ELOOP);
                        }
                        let target = readlinkat(&dir.layers[at].1, &name[..])?.into_vec();
                        if target.starts_with(b"/") {
                            dir = self.root(left)?;
                        }
                        push(&mut rest, &target);
                    } else if rest.is_empty() {
                        let (layer, fd) = dir.layers.swap_remove(at);
                        let node = Node { layer, dir: fd, path: dir.path, name, stat };
                        return Ok(Some(Found::Other(node)));
                    } else {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(Found::Directory(dir)))
    }

    /// What would be left of a directory if the topmost layer had nothing.
    pub(super) fn below(&self, dir: &[u8]) -> Result<Opened, Errno> {
        let mut layers = match self.find(dir, false)? {
            Some(Found::Directory(dir)) => dir.layers,
            _ => Opened::new(),
        };
        layers.retain(|(layer, _)| *layer > 0);
        Ok(layers)
    }

    fn root(&self, left: &mut usize) -> Result<Directory, Errno> {
        let mut layers = Vec::with_capacity(self.0.len());
        for (number, layer) in self.0.iter().enumerate() {
            spend(left)?;
            let fd = openat(layer, ".", DIRECTORY, Mode::empty())?;
            let last = number + 1 == self.0.len() || is_opaque(fd.as_fd())?;
            layers.push((number, fd));
            if last {
                break;
            }
        }
        Ok(Directory { layers, path: Vec::new() })
    }

    /// A directory by its path without links. Descriptors of all on the way could be too many.
    fn reopen(&self, path: Vec<Vec<u8>>, left: &mut usize) -> Result<Option<Directory>, Errno> {
        let mut dir = self.root(left)?;
        for name in &path {
            match look_up(&dir.layers, name, left)? {
                Some(Child::Directory(layers)) => dir.layers = layers,
                _ => return Ok(None),
            }
        }
        Ok(Some(Directory { path, ..dir }))
    }
}

/// Puts the components of a path on the stack of those to come.
fn push(rest: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.rsplit(|byte| *byte == b'/').filter(|part| !part.is_empty());
    rest.extend(parts.map(<[u8]>::to_vec));
}

/// Counts a look into a directory of one layer.
fn spend(left: &mut usize) -> Result<(), Errno> {
    *left = left.checked_sub(1).ok_or(Errno::ELOOP)?;
    Ok(())
}

/// What has this name in a directory of the tree.
pub(super) fn child(layers: &[(usize, OwnedFd)], name: &[u8]) -> Result<Option<Child>, Errno> {
    look_up(layers, name, &mut layers.len())
}

fn look_up(
    layers: &[(usize, OwnedFd)],
    name: &[u8],
    left: &mut usize,
) -> Result<Option<Child>, Errno> {
    let mut found = Opened::new();
    for (at, (number, layer)) in layers.iter().enumerate() {
        spend(left)?;
        let stat = match fstatat(layer, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            // No filesystem has such a name.
            Err(Errno::ENAMETOOLONG) => return Ok(None),
            stat => stat?,
        };
        if kind(&stat) != libc::S_IFDIR {
            if found.is_empty() && !is_whiteout(&stat) {
                return Ok(Some(Child::Other(at, stat)));
            }
            break;
        }
        let fd = match openat(layer, name, DIRECTORY, Mode::empty()) {
            Err(Errno::EACCES) => openat(layer, name, DIRECTORY | OFlag::O_PATH, Mode::empty())?,
            fd => fd?,
        };
        let last = at + 1 == layers.len() || is_opaque(fd.as_fd())?;
        found.push((*number, fd));
        if last {
            break;
        }
    }
    Ok((!found.is_empty()).then_some(Child::Directory(found)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use nix::sys::stat::{SFlag, mknodat};

    use super::*;

    struct Layers {
        path: PathBuf,
        dirs: Vec<File>,
    }

    impl Layers {
        fn new(name: &str, count: usize) -> Layers {
            let name = format!("locule-trees-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("outside"), "outside").unwrap();
            let dirs = (0..count).map(|number| {
                let dir = path.join(number.to_string());
                fs::create_dir(&dir).unwrap();
                File::open(dir).unwrap()
            });
            Layers { dirs: dirs.collect(), path }
        }

        /// A file of layer 0, the topmost, or another.
        fn put(&self, layer: usize, path: &str, data: &str) {
            let path = self.path.join(layer.to_string()).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        }

        fn link(&self, layer: usize, path: &str, target: &str) {
            symlink(target, self.path.join(layer.to_string()).join(path)).unwrap();
        }

        fn read(&self, path: &str) -> Result<Option<String>> {
            let bytes = read_file(&self.dirs, path, 100)?;
            Ok(bytes.map(|bytes| String::from_utf8(bytes).unwrap()))
        }
    }

    impl Drop for Layers {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.path).unwrap();
        }
    }

    #[test]
    fn upper_layers_cover_lower_ones() {
        let layers = Layers::new("cover", 3);
        layers.put(2, "etc/passwd", "old");
        layers.put(0, "etc/passwd", "new");
        layers.put(2, "etc/group", "group");
        layers.put(1, "etc/none", "");
        layers.put(2, "gone/x", "x");
        layers.put(2, "hidden/x", "x");
        layers.put(1, "hidden/y", "y");
        layers.put(0, "hidden/z", "z");
        layers.put(2, "file/x", "x");
        layers.put(1, "file", "file");
        mknodat(&layers.dirs[1], "gone", SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        let hidden = openat(&layers.dirs[1], "hidden", DIRECTORY, Mode::empty()).unwrap();
        xattr::set(xattr::Of::File(hidden.as_fd()), OPAQUE[1], b"y").unwrap();
        let read = |path: &str| layers.read(path).unwrap();
        assert_eq!(read("/etc/passwd").as_deref(), Some("new"));
        assert_eq!(read("etc/./group").as_deref(), Some("group"));
        assert_eq!(read("etc//none").as_deref(), Some(""));
        assert_eq!(read("etc/other"), None);
        assert_eq!(read("gone/x"), None);
        assert_eq!(read("gone"), None);
        assert_eq!(read("hidden/x"), None);
        assert_eq!(read("hidden/y").as_deref(), Some("y"));
        assert_eq!(read("hidden/z").as_deref(), Some("z"));
        assert_eq!(read("file").as_deref(), Some("file"));
        assert_eq!(read("file/x"), None);
        assert_eq!(read(&"a".repeat(300)), None);
        assert_eq!(read_file(&[], "x", 1).unwrap(), None);
    }

    #[test]
    fn links_lead_through_the_tree_and_never_out() {
        let layers = Layers::new("links", 2);
        layers.put(1, "usr/etc/passwd", "right");
        layers.put(0, "usr/bin/x", "x");
        layers.link(0, "etc", "/usr/etc");
        layers.link(1, "usr/etc/again", "../../etc/passwd");
        layers.link(1, "out", "../outside");
        layers.link(1, "far", "../../../../../outside");
        layers.link(1, "away", layers.path.join("outside").to_str().unwrap());
        layers.link(1, "up", "..");
        layers.link(1, "a", "b");
        layers.link(1, "b", "a");
        let read = |path: &str| layers.read(path).unwrap();
        assert_eq!(read("etc/passwd").as_deref(), Some("right"));
        assert_eq!(read("etc/again").as_deref(), Some("right"));
        assert_eq!(read("usr/bin/../etc/again").as_deref(), Some("right"));
        assert_eq!(read("up/../../up/usr/bin/x").as_deref(), Some("x"));
        for path in ["out", "far", "away", "../outside", "/../outside", "up/outside"] {
            assert_eq!(read(path), None, "{path}");
        }
        let error = layers.read("a").unwrap_err();
        assert_eq!(error.category(), Category::Spec);
        assert!(error.to_string().contains("more than 40 links"), "{error}");
    }

    #[test]
    fn a_path_may_be_long_and_never_endless() {
        let layers = Layers::new("long", 2);
        let deep = "d/".repeat(1000);
        for layer in 0..2 {
            layers.put(layer, &format!("{deep}{layer}"), "deep");
        }
        layers.put(1, &format!("{}x", "d/".repeat(980)), "x");
        layers.link(0, "way", &format!("/{deep}{}x", "../".repeat(20)));
        layers.link(0, "round", &format!("/{deep}{}", "../d/".repeat(400)));
        assert_eq!(layers.read("way").unwrap().as_deref(), Some("x"));
        assert_eq!(layers.read(&format!("{deep}1")).unwrap().as_deref(), Some("deep"));
        let error = layers.read("round/1").unwrap_err();
        assert_eq!(error.category(), Category::Spec);
        assert!(error.to_string().contains("too many directories"), "{error}");
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let layers = Layers::new("regular", 1);
        layers.put(0, "d/f", &"x".repeat(100));
        layers.put(0, "d/g", &"x".repeat(101));
        mknodat(&layers.dirs[0], "p", SFlag::S_IFIFO, Mode::S_IRWXU, 0).unwrap();
        assert_eq!(layers.read("d/f").unwrap().map(|text| text.len()), Some(100));
        assert_eq!(layers.read("d/g").unwrap_err().category(), Category::Resource);
        for path in ["d", "p", "/", ""] {
            let error = layers.read(path).unwrap_err();
            assert_eq!(error.category(), Category::Spec, "{path}");
            assert!(error.to_string().contains("is no regular file"), "{error}");
        }
    }
}
