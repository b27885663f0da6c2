//! What is mounted beside the template's own: the caller's binds and the image's volumes.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use oci_spec::image::Config;

use super::{ImageMount, Overrides, invalid, wrong_image};
use crate::spec::oci::{Mount, MountBuilder};
use crate::{Error, Result, Stage};

/// The binds as the template takes them: source, target, whether read-only.
pub(super) fn binds(mounts: &[ImageMount]) -> Result<Vec<(PathBuf, PathBuf, bool)>> {
    let bind = |(index, mount): (usize, &ImageMount)| {
        if mount.source.as_os_str().is_empty() {
            return Err(invalid(format!("`mounts[{index}].source` is empty")));
        }
        if !mount.target.is_absolute() {
            let target = &mount.target;
            return Err(invalid(format!("`mounts[{index}].target` {target:?} is not absolute")));
        }
        let source = std::path::absolute(&mount.source).map_err(|error| {
            let message = format!("find the current directory, for `mounts[{index}].source`");
            Error::io(Stage::Image, &error, message)
        })?;
        Ok((source, mount.target.clone(), mount.readonly))
    };
    mounts.iter().enumerate().map(bind).collect()
}

/// Puts the image's volumes among the mounts.
///
/// A volume is a place to write to. In a writable root it is one already: the root of a container is
/// its own, and what it writes lasts as long as a volume without a name would. A read-only root gets a
/// tmpfs there, with what the image has at this place, its owner and mode. The same is `/tmp`; a
/// writable root has the image's instead of the template's.
pub(super) fn arrange(
    mounts: &mut Vec<Mount>,
    image: &Config,
    overrides: &Overrides,
) -> Result<()> {
    let binds = mounts.split_off(mounts.len() - overrides.mounts.len());
    let tmp = Path::new("/tmp");
    mounts.retain(|mount| mount.destination() != tmp);
    if overrides.readonly {
        let covered =
            |path: &Path| overrides.mounts.iter().any(|own| path.starts_with(plain(&own.target)));
        let mut paths = volumes(image)?;
        paths.retain(|path| path != tmp && !covered(path));
        if !covered(tmp) {
            mounts.push(in_memory(tmp, &["mode=1777"]));
        }
        mounts.extend(paths.iter().map(|path| in_memory(path, &[])));
    }
    mounts.extend(binds);
    Ok(())
}

/// The image's volumes, each once, an outer one before what is in it.
fn volumes(image: &Config) -> Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for volume in image.volumes().iter().flatten() {
        let path = Path::new(volume);
        if !path.is_absolute() {
            let message = format!("the path {volume:?} in the image's Volumes is not absolute");
            return Err(wrong_image(message));
        }
        let path = plain(path);
        // Images of systemd have /sys/fs/cgroup here. And what is in /proc is the kernel's word only
        // as long as an image cannot cover it (CVE-2019-16884).
        if path == Path::new("/") || ["/dev", "/proc", "/sys"].iter().any(|p| path.starts_with(p)) {
            tracing::warn!("the image's volume {volume:?} stays as the runtime has it");
            continue;
        }
        all.insert(path);
    }
    Ok(all)
}

/// A tmpfs with what is at its place.
fn in_memory(path: &Path, options: &[&str]) -> Mount {
    let options = [&["nosuid", "nodev", "tmpcopyup"], options].concat();
    let options: Vec<_> = options.into_iter().map(str::to_owned).collect();
    let mount = MountBuilder::default().typ("tmpfs").source("tmpfs").destination(path);
    mount.options(options).build().expect("every field has a default")
}

/// Without `.` and `..`, as it is meant from the container's root.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}
