//! Images: a store of them, what comes into it and what goes out.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use locule::Result;

use crate::argument::{self, invalid, object, optional_bytes, optional_path, text};
use crate::buf::{self, locule_buf};
use crate::container::{self, locule_container};
use crate::entry::{fallible, infallible};
use crate::error::{c_string, locule_error};
use crate::handle;
use crate::image_opts::{self, Call, locule_image_opts};
use crate::images;
use crate::options::{self, Versioned, check_flags};
use crate::runtime::json_buf;

/// Change nothing: use what is there. Root may open another user's store so.
pub const LOCULE_IMAGE_STORE_READ_ONLY: u64 = 1;

/// How a store is opened.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_image_store_opts {
    /// sizeof(struct locule_image_store_opts).
    pub size: usize,
    /// LOCULE_IMAGE_STORE_*.
    pub flags: u64,
    /// Its directory; made if missing. NULL: /var/lib/locule/images for root, else
    /// $XDG_DATA_HOME/locule/images, else ~/.local/share/locule/images.
    pub path: *const c_char,
}

// SAFETY: `repr(C)`, the size comes first, integers and pointers only, without padding
// (tests/abi/layout.rs).
unsafe impl Versioned for locule_image_store_opts {
    const NAME: &'static str = "locule_image_store_opts";
    const FIRST_SIZE: usize = 24;
}

/// A folder of images and their unpacked layers.
pub struct locule_image_store {
    store: images::Store,
    path: CString,
}

/// An image in a store.
pub struct locule_image {
    image: images::Image,
    digest: CString,
}

impl locule_image {
    fn new(image: images::Image) -> *mut locule_image {
        let digest = c_string(image.digest());
        handle::new(locule_image { image, digest })
    }
}

/// The store behind a handle.
///
/// # Safety
/// `store` is NULL or a live handle for the length of the call.
unsafe fn store_of<'a>(store: *const locule_image_store) -> Result<&'a images::Store> {
    // SAFETY: passed on to the caller.
    unsafe { object(store, "store") }.map(|store| &store.store)
}

/// The image behind a handle.
///
/// # Safety
/// `image` is NULL or a live handle for the length of the call.
unsafe fn image_of<'a>(image: *const locule_image) -> Result<&'a images::Image> {
    // SAFETY: passed on to the caller.
    unsafe { object(image, "image") }.map(|image| &image.image)
}

/// The image behind a handle that may be NULL.
///
/// # Safety
/// `image` is NULL or a live handle for the length of the call.
pub(crate) unsafe fn optional<'a>(image: *const locule_image) -> Option<&'a images::Image> {
    // SAFETY: passed on to the caller.
    unsafe { argument::optional(image) }.map(|image| &image.image)
}

/// # Safety
/// As for every function of [`argument`].
unsafe fn path_of<'a>(path: *const c_char, name: &str) -> Result<&'a Path> {
    // SAFETY: passed on to the caller.
    unsafe { optional_path(path) }.ok_or_else(|| invalid(format!("`{name}` is NULL")))
}

/// Opens a store and stores it in *out; the caller owns that reference. NULL for `opts` takes
/// every default. Any number of processes may use one store at once. Feature "images".
///
/// Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
/// LOCULE_E_NOT_FOUND, LOCULE_E_PERMISSION, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM, and with
/// LOCULE_E_UNSUPPORTED where the library was built without images. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_open(
    opts: *const locule_image_store_opts,
    out: *mut *mut locule_image_store,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let (path, flags) = match opts.is_null() {
                true => (None, 0),
                false => {
                    let opts = options::read(opts, "opts")?;
                    check_flags(opts.flags, LOCULE_IMAGE_STORE_READ_ONLY, "opts.flags")?;
                    (optional_path(opts.path), opts.flags)
                }
            };
            let store = images::open(path, flags & LOCULE_IMAGE_STORE_READ_ONLY != 0)?;
            let path = CString::new(store.path().as_os_str().as_bytes())
                .map_err(|_| invalid("the store's directory contains a NUL byte"))?;
            *out = handle::new(locule_image_store { store, path });
            Ok(0)
        })
    }
}

/// The store's directory. Borrowed from the store. NULL for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_path(
    store: *const locule_image_store,
) -> *const c_char {
    infallible(ptr::null(), || {
        // SAFETY: NULL or a live handle, as the header asks.
        unsafe { object(store, "store") }.map_or(ptr::null(), |store| store.path.as_ptr())
    })
}

/// Takes an image from an OCI layout, a directory or a tar file, or from a docker-archive, and
/// stores it in *out; the caller owns that reference. Nothing of it is used before its digest and
/// size were found right. NULL for `opts` takes every default. Feature "images".
///
/// Any thread. Blocks until it is in the store. Fails with LOCULE_E_INVALID, LOCULE_E_SPEC if it
/// is wrong, naming the blob, LOCULE_E_NOT_FOUND, LOCULE_E_UNSUPPORTED, LOCULE_E_STATE if the store
/// was opened read-only, LOCULE_E_CALLBACK, LOCULE_E_CANCELLED, LOCULE_E_TIMEOUT, LOCULE_E_BUSY,
/// LOCULE_E_PERMISSION, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_load(
    store: *mut locule_image_store,
    path: *const c_char,
    opts: *const locule_image_opts,
    out: *mut *mut locule_image,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let store = store_of(store)?;
            let path = path_of(path, "path")?;
            let choices = image_opts::choices(opts, Call::Load)?;
            *out = locule_image::new(images::load(store, path, &choices)?);
            Ok(0)
        })
    }
}

/// Fetches an image from a registry and stores it in *out; the caller owns that reference.
/// "alpine" is "docker.io/library/alpine:latest". What the store has of it already is not fetched
/// again. NULL for `opts` takes every default. Feature "registry".
///
/// Any thread. Blocks until it is in the store. Fails like locule_image_store_load, with
/// LOCULE_E_PERMISSION also where the registry refuses. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_pull(
    store: *mut locule_image_store,
    reference: *const c_char,
    opts: *const locule_image_opts,
    out: *mut *mut locule_image,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let store = store_of(store)?;
            let reference = text(reference, "reference")?;
            let choices = image_opts::choices(opts, Call::Pull)?;
            *out = locule_image::new(images::pull(store, reference, &choices)?);
            Ok(0)
        })
    }
}

/// Makes an image of one layer of a root filesystem, a directory or a tar file, and stores it in
/// *out; the caller owns that reference. NULL for `opts` takes every default. Feature "images".
///
/// Any thread. Blocks until it is in the store. Fails like locule_image_store_load. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_import(
    store: *mut locule_image_store,
    path: *const c_char,
    opts: *const locule_image_opts,
    out: *mut *mut locule_image,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let store = store_of(store)?;
            let path = path_of(path, "path")?;
            let choices = image_opts::choices(opts, Call::Import)?;
            *out = locule_image::new(images::import(store, path, &choices)?);
            Ok(0)
        })
    }
}

/// Makes an image of the one that a stopped container was made from and what it has changed, and
/// stores it in *out; the caller owns that reference. The container must have been created with
/// `changes`. NULL for `opts` takes every default. Feature "images".
///
/// Any thread. Blocks until it is in the store. Fails like locule_image_store_load, with
/// LOCULE_E_STATE if the container has not stopped, its changes were not kept or it was made from
/// no image, and with LOCULE_E_NOT_FOUND if that is not in this store. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_commit(
    store: *mut locule_image_store,
    container: *mut locule_container,
    opts: *const locule_image_opts,
    out: *mut *mut locule_image,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let store = store_of(store)?;
            let container = container::target(container)?;
            let choices = image_opts::choices(opts, Call::Commit)?;
            *out = locule_image::new(images::commit(store, container, &choices)?);
            Ok(0)
        })
    }
}

/// Stores in *out the image of this name, or with this digest, of which the first twelve
/// hexadecimal digits do; the caller owns that reference. It goes on meaning the same image when
/// its names are given to another one. Feature "images".
///
/// Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
/// LOCULE_E_NOT_FOUND, LOCULE_E_SPEC if it is damaged, LOCULE_E_UNSUPPORTED, LOCULE_E_SYSTEM.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_get(
    store: *mut locule_image_store,
    name: *const c_char,
    out: *mut *mut locule_image,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let store = store_of(store)?;
            *out = locule_image::new(store.get(text(name, "name")?)?);
            Ok(0)
        })
    }
}

/// Stores in *out all images, in the order of their names, those without one last: a JSON array of
/// objects with `digest`, `names`, `size` in bytes, compressed as they are, `mediaType`, `platform`,
/// such as "linux/amd64", and `created`, which may be null. One that is damaged is left out. The
/// caller frees it with locule_buf_free. Feature "images".
///
/// Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
/// LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_list_json(
    store: *mut locule_image_store,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            *out = json_buf(&images::list(store_of(store)?)?);
            Ok(0)
        })
    }
}

/// Takes a name away, or with a digest an image with all its names. Its blobs and layers go with
/// locule_image_store_prune_json, once no container needs them. Feature "images".
///
/// Any thread. Does not block, but for the filesystem, and up to half a minute for something to be
/// removed from the store. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND, LOCULE_E_STATE if the
/// store was opened read-only, LOCULE_E_BUSY, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_remove(
    store: *mut locule_image_store,
    name: *const c_char,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe { fallible(err, || store_of(store)?.remove(text(name, "name")?).map(|()| 0)) }
}

/// Removes images without a name, and what no image and no container needs. Stores in *out what
/// was removed: a JSON object with `images`, their digests, the numbers of `blobs` and of unpacked
/// `layers`, and `bytes`, those of the blobs. What a call that was stopped has left the next one
/// removes. NULL for `opts` takes every default. The caller frees *out with locule_buf_free.
/// Feature "images".
///
/// Any thread. Blocks until it is removed, and before that up to half a minute for those who are
/// making something. Fails with LOCULE_E_INVALID, LOCULE_E_UNSUPPORTED, LOCULE_E_BUSY if they take
/// longer, LOCULE_E_STATE if the store was opened read-only, LOCULE_E_CANCELLED, LOCULE_E_TIMEOUT,
/// LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_prune_json(
    store: *mut locule_image_store,
    opts: *const locule_image_opts,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            let store = store_of(store)?;
            let choices = image_opts::choices(opts, Call::Prune)?;
            *out = json_buf(&images::prune(store, &choices)?);
            Ok(0)
        })
    }
}

/// Takes another reference and returns the store. NULL gives NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_ref(
    store: *mut locule_image_store,
) -> *mut locule_image_store {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { handle::acquire(store) }
}

/// Gives a reference back; the last one frees the handle. Images from it go on. NULL is ignored.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_store_unref(store: *mut locule_image_store) {
    // SAFETY: NULL or a reference that the caller owns, as the header asks.
    infallible((), || unsafe { handle::release(store) });
}

/// The digest of the image's manifest, such as "sha256:9f86...". Borrowed from the image. NULL for
/// NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_digest(image: *const locule_image) -> *const c_char {
    infallible(ptr::null(), || {
        // SAFETY: NULL or a live handle, as the header asks.
        unsafe { object(image, "image") }.map_or(ptr::null(), |image| image.digest.as_ptr())
    })
}

/// Stores in *out what the image is: a JSON object with `digest`, `names` as they were when it was
/// looked up, `size`, `mediaType`, `platform`, `created`, `layers` (each with `digest`, `size`,
/// `mediaType` and `diffId`), `config`, which is the image configuration, and `manifest`. The
/// caller frees it with locule_buf_free.
///
/// Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
/// LOCULE_E_NOT_FOUND if it has been pruned, LOCULE_E_SPEC if it is damaged, LOCULE_E_SYSTEM.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_inspect_json(
    image: *const locule_image,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            *out = json_buf(&image_of(image)?.inspect()?);
            Ok(0)
        })
    }
}

/// Gives the image a further name, taking that from the image that has it.
///
/// Any thread. Does not block, but for the filesystem, and up to half a minute for something to be
/// removed from the store. Fails with LOCULE_E_INVALID,
/// LOCULE_E_NOT_FOUND if it has been pruned, LOCULE_E_STATE if the store was opened read-only,
/// LOCULE_E_BUSY, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_tag(
    image: *mut locule_image,
    name: *const c_char,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe { fallible(err, || image_of(image)?.tag(text(name, "name")?).map(|_| 0)) }
}

/// Writes the image to an OCI layout: a tar file if `path` ends with ".tar", else a directory, to
/// whose images it is added. NULL for `opts` takes every default.
///
/// Any thread. Blocks until it is written. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND,
/// LOCULE_E_SPEC if it or the layout is damaged, LOCULE_E_CALLBACK, LOCULE_E_CANCELLED,
/// LOCULE_E_TIMEOUT, LOCULE_E_BUSY, LOCULE_E_PERMISSION, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_save(
    image: *mut locule_image,
    path: *const c_char,
    opts: *const locule_image_opts,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let image = image_of(image)?;
            let path = path_of(path, "path")?;
            images::save(image, path, &image_opts::choices(opts, Call::Save)?).map(|()| 0)
        })
    }
}

/// Sends the image to a registry, under this name there. What the registry has of it already is
/// not sent again. NULL for `opts` takes every default. Feature "registry".
///
/// Any thread. Blocks until the registry has it. Fails like locule_image_save, with
/// LOCULE_E_PERMISSION also where the registry refuses, and with LOCULE_E_UNSUPPORTED where the
/// library was built without registries. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_push(
    image: *mut locule_image,
    reference: *const c_char,
    opts: *const locule_image_opts,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let image = image_of(image)?;
            let reference = text(reference, "reference")?;
            images::push(image, reference, &image_opts::choices(opts, Call::Push)?).map(|()| 0)
        })
    }
}

/// Unpacks the image to a new or empty directory, as a plain tree. Nothing of it leaves that
/// directory. What fails may leave a part of it there. NULL for `opts` takes every default. A
/// container needs no such tree: see `image` of struct locule_create_opts.
///
/// Any thread. Blocks until it is unpacked. Fails like locule_image_save, with LOCULE_E_EXISTS if
/// the directory is not empty, and with LOCULE_E_RESOURCE also beyond a limit, which the message
/// names. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_unpack(
    image: *mut locule_image,
    dir: *const c_char,
    opts: *const locule_image_opts,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let image = image_of(image)?;
            let dir = path_of(dir, "dir")?;
            images::unpack(image, dir, &image_opts::choices(opts, Call::Unpack)?).map(|()| 0)
        })
    }
}

/// Unpacks into the image's store what a container of it needs, so that its creation need not.
/// `overrides_json` is what locule_container_create will get as `image_overrides_json`, as layers
/// are unpacked for each user namespace of their own, and without an overlay not at all; NULL:
/// nothing. What is there already is left as it is. NULL for `opts` takes every default.
///
/// Any thread. Blocks until it is unpacked. Fails like locule_image_save, with LOCULE_E_RESOURCE
/// also beyond a limit, which the message names. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_prepare(
    image: *mut locule_image,
    overrides_json: *const c_void,
    overrides_json_len: usize,
    opts: *const locule_image_opts,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let image = image_of(image)?;
            let overrides = optional_bytes(overrides_json, overrides_json_len, "overrides_json")?;
            let choices = image_opts::choices(opts, Call::Prepare)?;
            images::prepare(image, overrides, &choices).map(|()| 0)
        })
    }
}

/// Takes another reference and returns the image. NULL gives NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_ref(image: *mut locule_image) -> *mut locule_image {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { handle::acquire(image) }
}

/// Gives a reference back; the last one frees the handle. The image stays in its store: see
/// locule_image_store_remove. NULL is ignored.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_image_unref(image: *mut locule_image) {
    // SAFETY: NULL or a reference that the caller owns, as the header asks.
    infallible((), || unsafe { handle::release(image) });
}
