//! OCI layouts in a directory or a tar file, and docker-archives: what `docker save` writes.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fstat};
use oci_spec::image::{Descriptor, Digest, OciLayout};
use serde::Deserialize;
use serde_json::json;

use super::digest::{Hasher, sha256, unwrap, wrap};
use super::fetch::{Found, Source};
use super::layers::{Bounded, Counted};
use super::manifest::{self, MANIFEST};
use super::store::{LARGEST_DOCUMENT, REF_NAME, Store};
use super::transfer::{Arriving, Guide, open_soon};
use super::unpack::Limits;
use super::{Compression, compress, reference};
use crate::{Category, Error, Result, Stage};

/// The annotation in which newer versions of Docker have the whole name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// No archive has so many files, but for a hostile one.
const MOST_FILES: usize = 100_000;
/// What a compressed archive may become.
const LARGEST_ARCHIVE: u64 = 1 << 40;
/// The headers of all files of an archive, with what extends them, of which memory is made.
const LARGEST_HEADERS: u64 = 128 << 20;
/// No docker-archive has so many images, and none so many names.
const MOST_IMAGES: usize = 1000;

/// A layout or archive that has been opened.
pub(super) struct Layout {
    files: Files,
    /// What a docker-archive has in place of blobs.
    made: HashMap<Digest, Made>,
    images: Vec<Listed>,
}

/// One image of it.
#[derive(Debug, Clone)]
struct Listed {
    name: Option<String>,
    descriptor: Descriptor,
}

/// A blob without a digest of its own.
enum Made {
    Bytes(Vec<u8>),
    File(String),
}

enum Files {
    Dir { dir: File, links: Links },
    Tar { file: File, members: HashMap<String, Member> },
}

/// Where links in a directory may lead.
#[derive(Clone, Copy)]
enum Links {
    /// Layouts are made so that share their blobs. What is read through one counts for nothing but its digest.
    Anywhere,
    /// What a docker-archive names is an image's whatever it is, and would be sent on: it has to be the archive's.
    Within,
}

#[derive(Clone)]
enum Member {
    Bytes { offset: u64, size: u64 },
    Link(String),
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(Category::Spec, Stage::Image, message)
}

impl Layout {
    /// Opens what is at `path`. A compressed archive is unpacked to a draft of the store first.
    pub(super) fn open(path: &Path, store: &Store, guide: &mut Guide<'_>) -> Result<Layout> {
        let context = |error: Error| error.context(format!("{path:?}"));
        let failed = |error| Error::io(Stage::Image, &error, format!("open {path:?}"));
        let file = open_soon(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let files = if metadata.is_dir() {
            Files::Dir { dir: file, links: Links::Anywhere }
        } else if metadata.is_file() || metadata.file_type().is_fifo() {
            let file = plain(file, metadata.is_file(), store, guide).map_err(context)?;
            let members = members(&file, guide).map_err(context)?;
            Files::Tar { file, members }
        } else {
            let message = format!("{path:?} is no file, no directory and no pipe");
            return Err(Error::new(Category::Invalid, Stage::Image, message));
        };
        let mut layout = Layout { files, made: HashMap::new(), images: Vec::new() };
        layout.list(guide).map_err(context)?;
        Ok(layout)
    }

    fn list(&mut self, guide: &mut Guide<'_>) -> Result<()> {
        // Newer archives of Docker are both, and the layout has the digests.
        if let Some(header) = self.files.text("oci-layout")? {
            let header: OciLayout = manifest::parse(&header, "oci-layout")?;
            let version = header.image_layout_version();
            if version != "1.0.0" {
                let message = format!("oci-layout: imageLayoutVersion {version:?} is unknown");
                return Err(Error::new(Category::Unsupported, Stage::Image, message));
            }
            let index = self.files.text("index.json")?;
            let index = index.ok_or_else(|| wrong("an image layout without index.json"))?;
            let index: oci_spec::image::ImageIndex = manifest::parse(&index, "index.json")?;
            self.images = index.manifests().iter().map(listed).collect();
            return Ok(());
        }
        if let Files::Dir { links, .. } = &mut self.files {
            *links = Links::Within;
        }
        match self.files.text("manifest.json")? {
            Some(list) => self.list_docker(&list, guide),
            None => Err(wrong(
                "neither an image layout, which has a file oci-layout, nor a \
                               docker-archive, which has a manifest.json",
            )
            .hint("a tar file of a root filesystem is taken by import")),
        }
    }

    /// Makes manifests for a docker-archive. Its layers are read for their digests.
    fn list_docker(&mut self, list: &[u8], guide: &mut Guide<'_>) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Image {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let list: Vec<Image> = manifest::parse(list, "manifest.json")?;
        if list.len() > MOST_IMAGES {
            return Err(wrong(format!("manifest.json: there are more than {MOST_IMAGES} images")));
        }
        let mut digests: HashMap<String, (Digest, u64, &'static str)> = HashMap::new();
        for (number, image) in list.into_iter().enumerate() {
            let at = |what: &str| format!("manifest.json: [{number}].{what}");
            if image.layers.len() > manifest::MOST_LAYERS {
                return Err(wrong(format!(
                    "{}: {} layers, of which there may be {}",
                    at("Layers"),
                    image.layers.len(),
                    manifest::MOST_LAYERS
                )));
            }
            guide.check()?;
            let config = self.files.text(&image.config)?;
            let config = config.ok_or_else(|| {
                wrong(format!("{}: there is no {:?}", at("Config"), image.config))
            })?;
            let config_digest = sha256(&config);
            // Its name is its digest, in both ways of writing an archive.
            let stem = image.config.rsplit('/').next().unwrap_or_default();
            let stem = stem.strip_suffix(".json").unwrap_or(stem);
            if stem.len() == 64 && stem != config_digest.digest() {
                let message =
                    format!("{}: {:?} has the digest {config_digest}", at("Config"), image.config);
                return Err(wrong(message));
            }
            let mut layers = Vec::new();
            for (index, layer) in image.layers.iter().enumerate() {
                let known = match digests.get(layer) {
                    Some(known) => known.clone(),
                    None => {
                        let missing = || {
                            wrong(format!(
                                "{}: there is no {layer:?}",
                                at(&format!("Layers[{index}]"))
                            ))
                        };
                        let reader = self.files.open(layer, 0)?.ok_or_else(missing)?;
                        let known = measure(reader, guide)?;
                        digests.insert(layer.clone(), known.clone());
                        known
                    }
                };
                let (digest, size, media_type) = known;
                layers.push(
                    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size }),
                );
                self.made.insert(digest, Made::File(layer.clone()));
            }
            let manifest = manifest::text(&config_digest, config.len(), layers);
            let digest = sha256(&manifest);
            let descriptor =
                Descriptor::new(MANIFEST.into(), manifest.len() as u64, digest.clone());
            // Not its bytes: there may be many.
            self.made.insert(config_digest, Made::File(image.config));
            self.made.insert(digest, Made::Bytes(manifest));
            let tags = image.repo_tags.unwrap_or_default();
            // Each gets a descriptor of its own.
            if self.images.len() + tags.len() > MOST_IMAGES {
                let message = format!("manifest.json: there are more than {MOST_IMAGES} names");
                return Err(wrong(message));
            }
            let with_name = |name| Listed { name, descriptor: descriptor.clone() };
            match tags.is_empty() {
                true => self.images.push(with_name(None)),
                false => self.images.extend(tags.into_iter().map(Some).map(with_name)),
            }
        }
        Ok(())
    }

    /// The image that is wanted, the only one if none is named, and its names here.
    pub(super) fn choose(
        &mut self,
        from: Option<&str>,
        guide: &mut Guide<'_>,
    ) -> Result<(Found, Vec<String>)> {
        let whole = |name: &str| reference::parse(name).map(|name| reference::whole(&name)).ok();
        let fits = |image: &&Listed| match from {
            None => true,
            Some(from) => {
                let name = image.name.as_deref();
                name == Some(from)
                    || image.descriptor.digest().as_ref() == from
                    || name.and_then(whole).is_some_and(|name| whole(from) == Some(name))
            }
        };
        let fitting: Vec<&Listed> = self.images.iter().filter(fits).collect();
        let Some(first) = fitting.first() else {
            let message = match from {
                Some(from) => format!("there is no image {from:?}{}", self.what_there_is()),
                None => "there is no image in it".to_owned(),
            };
            return Err(Error::new(Category::NotFound, Stage::Image, message));
        };
        let same = |image: &&Listed| image.descriptor.digest() == first.descriptor.digest();
        if !fitting.iter().all(same) {
            let message = format!("there are several images in it{}", self.what_there_is());
            return Err(Error::new(Category::Invalid, Stage::Image, message)
                .hint("say which by its name or digest there"));
        }
        if fitting.len() > MOST_IMAGES {
            return Err(wrong(format!("the image has more than {MOST_IMAGES} names there")));
        }
        let names = fitting.iter().filter_map(|image| image.name.clone()).collect();
        let descriptor = first.descriptor.clone();
        let bytes = self.document(&descriptor, guide)?;
        Ok((Found { bytes, media_type: descriptor.media_type().to_string() }, names))
    }

    fn what_there_is(&self) -> String {
        let names = self.images.iter().take(20).map(|image| match &image.name {
            Some(name) => name.escape_debug().to_string(),
            None => image.descriptor.digest().to_string(),
        });
        let names: Vec<_> = names.collect();
        if names.is_empty() { String::new() } else { format!("; there are: {}", names.join(", ")) }
    }
}

impl Source for Layout {
    fn blob<'s>(
        &'s mut self,
        descriptor: &Descriptor,
        from: u64,
        _guide: &mut Guide<'_>,
    ) -> Result<Option<Box<dyn Read + 's>>> {
        let digest = descriptor.digest();
        match self.made.get(digest) {
            Some(Made::Bytes(bytes)) => {
                let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Some(Box::new(&bytes[from..])))
            }
            Some(Made::File(name)) => self.files.open(name, from),
            None => {
                let name = format!("blobs/{}/{}", digest.algorithm(), digest.digest());
                self.files.open(&name, from)
            }
        }
    }
}

fn listed(descriptor: &Descriptor) -> Listed {
    let annotations = descriptor.annotations().as_ref();
    let of = |key: &str| annotations.and_then(|all| all.get(key)).cloned();
    let name = of(CONTAINERD_NAME).or_else(|| of(REF_NAME));
    Listed { name, descriptor: descriptor.clone() }
}

/// Digest, size and media type of a layer.
fn measure(
    mut reader: Box<dyn Read + '_>,
    guide: &Guide<'_>,
) -> Result<(Digest, u64, &'static str)> {
    let mut hasher = Hasher::sha256();
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    let mut compression = Compression::None;
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|error| unwrap(error, || "read a layer of the archive".to_owned()))?;
        if count == 0 {
            return Ok((hasher.finish(), size, compression.layer()));
        }
        if size == 0 {
            compression = compress::sniff(&buffer[..count.min(4)]);
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
        guide.check()?;
    }
}

impl Files {
    fn open<'s>(&'s self, name: &str, from: u64) -> Result<Option<Box<dyn Read + 's>>> {
        match self {
            Files::Dir { dir, links } => {
                let Some(mut file) = open_below(dir, name, *links)? else { return Ok(None) };
                let failed = |error| Error::io(Stage::Image, &error, format!("read {name:?}"));
                if !file.metadata().map_err(failed)?.is_file() {
                    return Err(wrong(format!("{name:?} is not a regular file")));
                }
                file.seek(SeekFrom::Start(from)).map_err(failed)?;
                Ok(Some(Box::new(file)))
            }
            Files::Tar { file, members } => {
                let Some((offset, size)) = follow(members, name)? else { return Ok(None) };
                let from = from.min(size);
                Ok(Some(Box::new(Part { file, at: offset + from, end: offset + size })))
            }
        }
    }

    /// A document, whole.
    fn text(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(reader) = self.open(name, 0)? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader
            .take(LARGEST_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unwrap(error, || format!("read {name:?}")))?;
        if bytes.len() as u64 > LARGEST_DOCUMENT {
            return Err(wrong(format!("{name:?} is larger than {} MiB", LARGEST_DOCUMENT >> 20)));
        }
        Ok(Some(bytes))
    }
}

/// Opens a file of a layout or archive.
fn open_below(dir: &File, name: &str, links: Links) -> Result<Option<File>> {
    let path = Path::new(name);
    if !path.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        return Err(wrong(format!("the path {name:?} leads out of the layout")));
    }
    let open = |flags| match links {
        Links::Anywhere => openat(dir, path, flags | OFlag::O_CLOEXEC, Mode::empty()),
        Links::Within => {
            let within = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
            let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(within);
            openat2(dir, path, how)
        }
    };
    // There are devices that do something when they are opened.
    let opened = match open(OFlag::O_PATH).and_then(fstat) {
        Ok(found) if found.st_mode & libc::S_IFMT != libc::S_IFREG => {
            return Err(wrong(format!("{name:?} is not a regular file")));
        }
        Ok(_) => open(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY),
        Err(errno) => Err(errno),
    };
    match opened {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(Errno::EXDEV) => {
            Err(wrong(format!("{name:?} is a link that leads out of the archive")))
        }
        // The name is somebody else's.
        Err(errno @ (Errno::EINVAL | Errno::ENAMETOOLONG | Errno::ELOOP)) => {
            Err(wrong(format!("open {name:?}: {}", errno.desc())))
        }
        Err(errno) => {
            let by = match links {
                Links::Anywhere => "",
                Links::Within => " with openat2",
            };
            Err(Error::os(Stage::Image, errno as i32, format!("open {name:?}{by}")))
        }
    }
}

/// A part of the archive.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(wrap(wrong("the archive ends in the middle of it")));
        }
        self.at += count as u64;
        Ok(count)
    }
}

fn follow(members: &HashMap<String, Member>, name: &str) -> Result<Option<(u64, u64)>> {
    let mut name = normal("", name)?;
    for _ in 0..16 {
        match members.get(&name) {
            Some(Member::Bytes { offset, size }) => return Ok(Some((*offset, *size))),
            Some(Member::Link(target)) => name = target.clone(),
            None => return Ok(None),
        }
    }
    Err(wrong(format!("{name:?}: links lead to links")))
}

/// A name in the archive without `.` and `..`, as seen from the directory `base`.
fn normal(base: &str, name: &str) -> Result<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                let outside = || wrong(format!("the name {name:?} leads out of the archive"));
                parts.pop().ok_or_else(outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// An archive of which only so much is read; the rest is sought over.
struct Headers<'a> {
    file: &'a File,
    left: u64,
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                let limit = LARGEST_HEADERS >> 20;
                return Err(wrap(wrong(format!("its headers are larger than {limit} MiB"))));
            }
        }
        Ok(count)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Where the files are in a tar file.
fn members(file: &File, guide: &Guide<'_>) -> Result<HashMap<String, Member>> {
    let failed = |error| unwrap(error, || "read the archive".to_owned());
    let mut members = HashMap::new();
    let mut reader = file;
    reader.rewind().map_err(failed)?;
    let mut archive = tar::Archive::new(Headers { file, left: LARGEST_HEADERS });
    for entry in archive.entries_with_seek().map_err(failed)? {
        guide.check()?;
        let entry = entry.map_err(|error| {
            let error = failed(error);
            if error.errno().is_some() { error } else { error.with_category(Category::Spec) }
        })?;
        let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
        let kind = entry.header().entry_type();
        let member = if kind.is_file() || kind.is_contiguous() {
            Member::Bytes { offset: entry.raw_file_position(), size: entry.size() }
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().map(|target| target.into_owned());
            let Some(Ok(target)) = target.map(String::from_utf8) else { continue };
            let base = match kind.is_symlink() {
                true => name.rsplit_once('/').map_or("", |(dir, _)| dir),
                false => "",
            };
            let Ok(target) = normal(base, &target) else { continue };
            Member::Link(target)
        } else {
            continue;
        };
        if members.len() >= MOST_FILES {
            return Err(wrong(format!("the archive has more than {MOST_FILES} files")));
        }
        if let Ok(name) = normal("", &name) {
            members.insert(name, member);
        }
    }
    Ok(members)
}

/// The archive as a file that can be sought in, uncompressed.
fn plain(file: File, seekable: bool, store: &Store, guide: &Guide<'_>) -> Result<File> {
    if seekable {
        let mut head = [0; 4];
        let count = file.read_at(&mut head, 0);
        let count = count.map_err(|error| unwrap(error, || "read the archive".to_owned()))?;
        if compress::sniff(&head[..count]) == Compression::None {
            return Ok(file);
        }
    }
    let packed = Cell::new(0);
    let counted = Counted { source: Arriving { file: &file, guide }, done: &packed };
    let (_, source) = compress::decoder(Box::new(counted))?;
    let limits = Limits { bytes: LARGEST_ARCHIVE, ..Limits::default() };
    let mut source = Bounded { source, limits: &limits, packed: &packed, plain: 0 };
    let mut draft = anonymous(store)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        guide.check()?;
        let count = source.read(&mut buffer);
        let count = count.map_err(|error| unwrap(error, || "read the archive".to_owned()))?;
        if count == 0 {
            return Ok(draft);
        }
        let written = draft.write_all(&buffer[..count]);
        written.map_err(|error| Error::io(Stage::Image, &error, "write a draft of the archive"))?;
    }
}

/// A file without a name in the store.
fn anonymous(store: &Store) -> Result<File> {
    let path = store.draft("archive");
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = file.map_err(|error| Error::io(Stage::Image, &error, format!("make {path:?}")))?;
    let _ = std::fs::remove_file(&path);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::Cancel;
    use crate::image::{StoreOptions, Transfer};

    /// A docker-archive in a directory, beside a store.
    struct Archive(PathBuf);

    impl Archive {
        fn new(name: &str, images: serde_json::Value) -> Archive {
            let name = format!("locule-layout-{}-{name}", std::process::id());
            let archive = Archive(std::env::temp_dir().join(name));
            fs::create_dir_all(archive.path()).unwrap();
            archive.write("c.json", b"{}");
            archive.write("manifest.json", images.to_string().as_bytes());
            archive
        }

        fn path(&self) -> PathBuf {
            self.0.join("archive")
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            fs::write(self.path().join(name), bytes).unwrap();
        }

        fn open(&self, path: &Path, transfer: Transfer<'_>) -> Result<Layout> {
            let path_of_store = Some(self.0.join("store"));
            let store = Store::open(StoreOptions { path: path_of_store, ..Default::default() });
            Layout::open(path, &store.unwrap(), &mut Guide::new(transfer))
        }

        fn wrong(&self) -> String {
            match self.open(&self.path(), Transfer::default()) {
                Ok(_) => "nothing is wrong".to_owned(),
                Err(error) => error.to_string(),
            }
        }
    }

    impl Drop for Archive {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// One layer, in zstd after a frame to skip, as pzstd writes it.
    fn skipping() -> Vec<u8> {
        let packed = zstd::encode_all(&[0; 1024][..], 1).unwrap();
        [b"\x50\x2a\x4d\x18\x04\0\0\0size".to_vec(), packed].concat()
    }

    #[test]
    fn names_are_counted_over_all_images() {
        let tags = vec![""; 501];
        let image = json!({ "Config": "c.json", "RepoTags": tags, "Layers": [] });
        let archive = Archive::new("names", json!([image, image]));
        assert!(archive.wrong().contains("more than 1000 names"), "{}", archive.wrong());
    }

    #[test]
    fn links_lead_to_what_is_in_a_docker_archive_only() {
        let image = json!({ "Config": "c.json", "RepoTags": null, "Layers": ["b/layer.tar"] });
        let archive = Archive::new("links", json!([image]));
        for folder in ["a", "b"] {
            fs::create_dir(archive.path().join(folder)).unwrap();
        }
        archive.write("a/layer.tar", &[0; 1024]);
        fs::write(archive.0.join("secret"), "secret").unwrap();
        let link = archive.path().join("b/layer.tar");
        for (target, leads_out) in
            [("../a/layer.tar", false), ("../../secret", true), ("/etc/passwd", true)]
        {
            symlink(target, &link).unwrap();
            assert_eq!(archive.wrong().contains("leads out of"), leads_out, "{}", archive.wrong());
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn zstd_that_begins_with_a_frame_to_skip_is_zstd() {
        let image = json!({ "Config": "c.json", "RepoTags": null, "Layers": ["l"] });
        let archive = Archive::new("skips", json!([image]));
        archive.write("l", &skipping());
        let mut layout = archive.open(&archive.path(), Transfer::default()).unwrap();
        let (found, _) = layout.choose(None, &mut Guide::new(Transfer::default())).unwrap();
        let manifest = String::from_utf8(found.bytes).unwrap();
        assert!(manifest.contains("image.layer.v1.tar+zstd"), "{manifest}");
        // And as the whole of an archive, which is an empty one.
        let path = archive.path().join("l");
        let error = archive.open(&path, Transfer::default()).err().unwrap();
        assert!(error.to_string().contains("neither an image layout"), "{error}");
    }

    #[test]
    fn an_archive_comes_through_a_pipe_which_is_waited_for_as_long_as_the_caller_wants() {
        let archive = Archive::new("fifo", json!([]));
        let path = archive.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let transfer =
            || Transfer { timeout: Some(Duration::from_millis(20)), ..Transfer::default() };
        let nobody = archive.open(&path, transfer()).err().unwrap();
        assert_eq!(nobody.category(), Category::Timeout, "{nobody}");
        let writer = File::options().read(true).write(true).open(&path).unwrap();
        let silent = archive.open(&path, transfer()).err().unwrap();
        assert_eq!(silent.category(), Category::Timeout, "{silent}");
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir("some", archive.path()).unwrap();
        let bytes = tar.into_inner().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || (&writer).write_all(&bytes).unwrap());
            let error = archive.open(&path, Transfer::default()).err().unwrap();
            assert!(error.to_string().contains("neither an image layout"), "{error}");
        });
    }

    #[test]
    fn what_is_no_file_no_directory_and_no_pipe_is_refused() {
        let archive = Archive::new("device", json!([]));
        let error = archive.open(Path::new("/dev/zero"), Transfer::default()).err().unwrap();
        assert_eq!(error.category(), Category::Invalid);
        assert!(error.to_string().contains("no pipe"), "{error}");
    }

    #[test]
    fn the_reading_of_configurations_can_be_cancelled() {
        let image = json!({ "Config": "c.json", "RepoTags": null, "Layers": [] });
        let archive = Archive::new("cancel", json!([image]));
        let cancel = Cancel::new().unwrap();
        cancel.cancel();
        let transfer = Transfer { cancel: Some(&cancel), ..Transfer::default() };
        let error = archive.open(&archive.path(), transfer).err().unwrap();
        assert_eq!(error.category(), Category::Cancelled);
    }
}
