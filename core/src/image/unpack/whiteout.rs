//! What a layer says is gone.

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, fstatat, mknodat};

use super::Ids;
use super::stack::{Missing, Unpacker};
use super::{Form, os, shown, spec};
use crate::image::trees::{self, DIRECTORY, OPAQUE};
use crate::image::xattr::{self, Of};
use crate::{Error, Result};

impl Unpacker<'_, '_> {
    /// Applies the whiteout `.wh.NAME` in a directory.
    pub(super) fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        let opaque = name == b".wh..opq";
        if name.starts_with(b".wh.") && !opaque {
            // What aufs kept for itself.
            return Ok(());
        }
        if matches!(name, b"" | b"." | b"..") {
            return Err(spec(format!("it is a whiteout of {}", shown(name))));
        }
        // In a tree there is nothing to remove from a directory that is not there; in a layer it
        // may be that a lower one has it.
        let missing = match self.options.form {
            Form::Tree => Missing::Stop,
            Form::Layer => Missing::Follow,
        };
        if !self.enter(parent, missing)? {
            return Ok(());
        }
        match (self.options.form, opaque) {
            (Form::Tree, true) => self.remove_earlier(None),
            (Form::Tree, false) => self.remove(name),
            (Form::Layer, true) => self.hide_below(),
            (Form::Layer, false) => self.mark_gone(name),
        }
    }

    /// Removes from a tree what an earlier layer has made of this name, and that alone: entries of a layer
    /// come in any order.
    fn remove(&mut self, name: &[u8]) -> Result<()> {
        let inode = self.inode();
        let Some(made) = &self.made else { return Ok(()) };
        let made = made.has(inode, name);
        let stat = match fstatat(self.dir(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(()),
            stat => stat.map_err(|errno| os(errno, "look for what is to be gone"))?,
        };
        match (made, trees::kind(&stat)) {
            (false, _) => self.clear(name),
            (true, libc::S_IFDIR) => self.remove_earlier(Some(name)),
            (true, _) => Ok(()),
        }
    }

    /// Marks in a layer that a name is gone, if lower layers have it: in a directory that is in one layer
    /// alone overlayfs lists the marks.
    fn mark_gone(&mut self, name: &[u8]) -> Result<()> {
        let inode = self.inode();
        if self.copied.remove(&(inode, name.to_vec())) {
            self.remove_copied(name)?;
        }
        match self.child_below(name)? {
            Some(_) => self.mark(name),
            None => Ok(()),
        }
    }

    /// Where the layer has an entry of this name, that counts, and hides what is below.
    fn mark(&mut self, name: &[u8]) -> Result<()> {
        match mknodat(self.dir(), name, SFlag::S_IFCHR, Mode::empty(), 0) {
            Err(Errno::EEXIST) => {}
            made => {
                self.touch();
                return made.map_err(|errno| whiteout_failed(errno, name));
            }
        }
        let stat = fstatat(self.dir(), name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| os(errno, "look for what is to be gone"))?;
        if trees::kind(&stat) == libc::S_IFDIR {
            self.descend(name, Missing::Stop)?;
            self.forget_lower()?;
            self.mark_opaque()?;
        }
        Ok(())
    }

    /// Hides what lower layers have in the current directory.
    fn hide_below(&mut self) -> Result<()> {
        // Overlayfs does not look for the mark at the roots of layers.
        self.hides_all |= self.real_path().is_empty();
        self.forget_lower()?;
        self.mark_opaque()
    }

    /// Makes the current directory opaque, with the mark that an overlay of these files will look for: in a
    /// user namespace that of users. Never both: an overlay copies the one it does not know, and
    /// then it seems to be its own.
    pub(super) fn mark_opaque(&mut self) -> Result<()> {
        self.touch();
        self.below = None;
        let [trusted, user] = OPAQUE;
        let mark = |name| xattr::set(Of::File(self.dir()), name, b"y");
        let marked = match self.options.ids {
            Ids::Same => match mark(trusted) {
                Err(Errno::EPERM) => mark(user),
                marked => marked,
            },
            Ids::Caller | Ids::Mapped { .. } => mark(user),
        };
        marked.map_err(|errno| os(errno, "mark its directory opaque"))
    }

    /// Hides everything in the roots of lower layers, name by name.
    pub(super) fn hide_lower_roots(&mut self) -> Result<()> {
        let fail = |errno| os(errno, "hide the lower layers");
        let mut names = std::collections::BTreeSet::new();
        for layer in self.options.lower {
            let flags = DIRECTORY;
            let mut dir = nix::dir::Dir::openat(layer, ".", flags, Mode::empty()).map_err(fail)?;
            for entry in dir.iter() {
                self.guide.check()?;
                let name = entry.map_err(fail)?.file_name().to_bytes().to_vec();
                if !matches!(&name[..], b"." | b"..") && names.insert(name) {
                    self.count()?;
                }
            }
        }
        for name in names {
            self.guide.check()?;
            self.enter(b"", Missing::Stop)?;
            self.mark(&name)?;
        }
        self.enter(b"", Missing::Stop).map(drop)
    }
}

fn whiteout_failed(errno: Errno, name: &[u8]) -> Error {
    let error = os(errno, format!("mark that {} is gone", shown(name)));
    match errno {
        Errno::EPERM => error.hint(
            "overlayfs needs a character device 0:0 for this, which everybody may make since \
             Linux 5.8; before, and where seccomp or the filesystem forbids it, the image can \
             be unpacked as a plain tree",
        ),
        _ => error,
    }
}
