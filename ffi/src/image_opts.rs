//! How images are fetched, made, written and unpacked.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::time::Duration;

use locule::{Cancel, Category, Error, Result, Stage};

use crate::argument::{
    invalid, option_timeout, optional_bytes, optional_path, optional_text, unsupported,
};
use crate::cancel::{self, locule_cancel};
use crate::error::c_string;
use crate::options::{self, Versioned, check_flags, check_reserved};

/// Also the images that no container uses, named or not.
pub const LOCULE_PRUNE_ALL: u64 = 1;

/// gzip, which everything can read.
pub const LOCULE_COMPRESSION_GZIP: u32 = 0;
/// zstd: smaller and faster. Docker 23, podman and containerd 1.5 read it.
pub const LOCULE_COMPRESSION_ZSTD: u32 = 1;
/// None.
pub const LOCULE_COMPRESSION_NONE: u32 = 2;

/// Unpacked files belong to whom the image says; for an ordinary user, who can have no others, to
/// the caller.
pub const LOCULE_OWNER_AUTO: u32 = 0;
/// They belong to whom the image says.
pub const LOCULE_OWNER_IMAGE: u32 = 1;
/// They belong to the caller.
pub const LOCULE_OWNER_CALLER: u32 = 2;

/// It comes into the store.
pub const LOCULE_IMAGE_STEP_FETCH: u32 = 1;
/// It is unpacked. The digest is the layer's, the numbers are of its compressed bytes.
pub const LOCULE_IMAGE_STEP_UNPACK: u32 = 2;
/// It is written to a layout or an archive.
pub const LOCULE_IMAGE_STEP_SAVE: u32 = 3;
/// It goes to a registry.
pub const LOCULE_IMAGE_STEP_PUSH: u32 = 4;
/// A layer is made of a container's changes or of a tree.
pub const LOCULE_IMAGE_STEP_PACK: u32 = 5;

/// How far a call is with one blob. What is there already is told once, as finished.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_image_progress {
    /// What the library that runs has for this struct.
    pub size: usize,
    /// What is being done, one of LOCULE_IMAGE_STEP_*. A later version of the library may know
    /// further ones.
    pub step: u32,
    /// 1 when this blob is finished, else 0.
    pub finished: u32,
    /// Its digest; empty while a layer is being made.
    pub digest: *const c_char,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; 0 where that is not known.
    pub total: u64,
}

/// Is told how far a call is: of each blob the beginning and the end, and between them at most
/// ten times a second, on the thread that made the call. `progress` lives until the callback
/// returns. Returns 0 to go on; anything else makes the call fail with LOCULE_E_CALLBACK. It may
/// call Locule, but for images of the same store, and must return: no longjmp, no exception.
pub type locule_image_progress_fn = Option<
    unsafe extern "C" fn(progress: *const locule_image_progress, user: *mut c_void) -> c_int,
>;

/// What calls for images can be told. Each looks at the fields that name it and at those for all;
/// with another one set it fails with LOCULE_E_INVALID.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_image_opts {
    /// sizeof(struct locule_image_opts).
    pub size: usize,
    /// prune: 0 or LOCULE_PRUNE_ALL. Others: 0.
    pub flags: u64,
    /// The name that the image gets. load, pull: NULL takes the one that it has there; import,
    /// commit: it has none; save: the name in the layout, NULL being the one by which it was
    /// found.
    pub name: *const c_char,
    /// load: which image of several, by the name that it has there. NULL: the only one.
    pub from: *const c_char,
    /// load, pull: which of an index, as os/architecture[/variant]. NULL: this machine's.
    pub platform: *const c_char,
    /// All: is told how far it is, but by prune, which has nothing to tell. NULL: nobody is.
    pub progress: locule_image_progress_fn,
    /// What `progress` gets.
    pub progress_user: *mut c_void,
    /// All: stops the call. May be NULL.
    pub cancel: *mut locule_cancel,
    /// All: how long it may take, in milliseconds. 0: as long as it takes.
    pub timeout_ms: u32,
    /// import, commit: of the new layer, one of LOCULE_COMPRESSION_*.
    pub compression: u32,
    /// pull, push: the user. With a password alone that is a token.
    pub username: *const c_char,
    /// pull, push: the password. NULL: credentials are looked for in `auth_file`.
    pub password: *const c_char,
    /// pull, push: where credentials are. NULL: in $REGISTRY_AUTH_FILE, then in the usual places
    /// of podman and Docker.
    pub auth_file: *const c_char,
    /// pull, push: a file in PEM with certificates to trust beside the system's.
    pub ca_file: *const c_char,
    /// pull, push: mirrors and policy, see docs/images.md. NULL: /etc/locule/registries.json, if
    /// it is there.
    pub registries_file: *const c_char,
    /// import, commit: a JSON merge patch (RFC 7396) for `config` of the image configuration, such
    /// as {"Cmd": ["sh"]}.
    pub config_json: *const c_void,
    /// Its length in bytes.
    pub config_json_len: usize,
    /// import, commit: who made it.
    pub author: *const c_char,
    /// import, commit: a remark, for its history.
    pub comment: *const c_char,
    /// import, commit: when it was made, in RFC 3339, in UTC. NULL: the latest modification time
    /// in its layer, so that the same input gives the same image.
    pub created: *const c_char,
    /// unpack: the most bytes of a layer, uncompressed. 0: 128 GiB.
    pub max_bytes: u64,
    /// unpack: the most entries of a layer. 0: 4,000,000.
    pub max_entries: u64,
    /// unpack: how many times larger than compressed a layer may be, beyond its first 64 MiB. 0:
    /// 1024.
    pub max_ratio: u64,
    /// unpack: whom the files belong to, one of LOCULE_OWNER_*.
    pub owner: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, the size comes first, integers and pointers only, without padding
// (tests/abi/layout.rs).
unsafe impl Versioned for locule_image_opts {
    const NAME: &'static str = "locule_image_opts";
    const FIRST_SIZE: usize = 184;
}

/// A function that takes `locule_image_opts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Load,
    Pull,
    Import,
    Commit,
    Save,
    Push,
    Unpack,
    Prepare,
    Prune,
}

impl Call {
    fn function(self) -> &'static str {
        match self {
            Call::Load => "locule_image_store_load",
            Call::Pull => "locule_image_store_pull",
            Call::Import => "locule_image_store_import",
            Call::Commit => "locule_image_store_commit",
            Call::Save => "locule_image_save",
            Call::Push => "locule_image_push",
            Call::Unpack => "locule_image_unpack",
            Call::Prepare => "locule_image_prepare",
            Call::Prune => "locule_image_store_prune_json",
        }
    }

    /// The fields it looks at, beside those that all do.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Call::Load => &["name", "from", "platform"],
            Call::Pull => &[
                "name",
                "platform",
                "username",
                "password",
                "auth_file",
                "ca_file",
                "registries_file",
            ],
            Call::Import | Call::Commit => {
                &["name", "compression", "config_json", "author", "comment", "created"]
            }
            Call::Save => &["name"],
            Call::Push => &["username", "password", "auth_file", "ca_file", "registries_file"],
            Call::Unpack => &["max_bytes", "max_entries", "max_ratio", "owner"],
            Call::Prepare | Call::Prune => &[],
        }
    }

    fn flags(self) -> u64 {
        match self {
            Call::Prune => LOCULE_PRUNE_ALL,
            _ => 0,
        }
    }
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Packing {
    #[default]
    Gzip,
    Zstd,
    None,
}

/// Whom unpacked files belong to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Owner {
    #[default]
    Auto,
    Image,
    Caller,
}

/// The fields of `locule_image_opts`, checked; what a call has no use for is absent.
#[derive(Default)]
#[cfg_attr(not(feature = "registry"), allow(dead_code))] // checked in every build, used in one
pub(crate) struct Choices<'a> {
    pub(crate) all: bool,
    pub(crate) name: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    pub(crate) platform: Option<&'a str>,
    pub(crate) progress: locule_image_progress_fn,
    pub(crate) progress_user: Option<*mut c_void>,
    pub(crate) cancel: Option<&'a Cancel>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) packing: Packing,
    pub(crate) credentials: Option<(&'a str, &'a str)>,
    pub(crate) auth_file: Option<&'a Path>,
    pub(crate) ca_file: Option<&'a Path>,
    pub(crate) registries_file: Option<&'a Path>,
    pub(crate) config: Option<serde_json::Value>,
    pub(crate) author: Option<&'a str>,
    pub(crate) comment: Option<&'a str>,
    pub(crate) created: Option<&'a str>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_entries: Option<u64>,
    pub(crate) max_ratio: Option<u64>,
    pub(crate) owner: Owner,
}

impl Choices<'_> {
    /// Tells the host how far it is.
    #[cfg_attr(not(feature = "images"), allow(dead_code))] // there is nothing to tell
    pub(crate) fn tell(
        &self,
        step: u32,
        digest: &str,
        (done, total): (u64, u64),
        finished: bool,
    ) -> Result<()> {
        let Some(callback) = self.progress else { return Ok(()) };
        let digest: CString = c_string(digest);
        let progress = locule_image_progress {
            size: size_of::<locule_image_progress>(),
            step,
            finished: finished.into(),
            digest: digest.as_ptr(),
            done,
            total,
        };
        let user = self.progress_user.unwrap_or(std::ptr::null_mut());
        // SAFETY: the host's function, with what the host gave with it; `progress` lives on.
        match unsafe { callback(&progress, user) } {
            0 => Ok(()),
            code => Err(Error::new(
                Category::Callback,
                Stage::Image,
                format!("the progress callback returned {code}"),
            )),
        }
    }
}

/// The choices for a call; NULL takes every default.
///
/// # Safety
/// `opts` is NULL or a struct with its size, whose pointers are as the header asks, for `'a`.
pub(crate) unsafe fn choices<'a>(
    opts: *const locule_image_opts,
    call: Call,
) -> Result<Choices<'a>> {
    if opts.is_null() {
        return Ok(Choices::default());
    }
    // SAFETY: passed on to the caller.
    unsafe {
        let opts = options::read(opts, "opts")?;
        check_flags(opts.flags, call.flags(), "opts.flags")?;
        check_reserved(opts.reserved, "opts.reserved")?;
        opts.refuse_what_is_not_for(call)?;
        opts.convert()
    }
}

impl locule_image_opts {
    fn refuse_what_is_not_for(&self, call: Call) -> Result<()> {
        let fields = [
            ("name", !self.name.is_null()),
            ("from", !self.from.is_null()),
            ("platform", !self.platform.is_null()),
            ("compression", self.compression != 0),
            ("username", !self.username.is_null()),
            ("password", !self.password.is_null()),
            ("auth_file", !self.auth_file.is_null()),
            ("ca_file", !self.ca_file.is_null()),
            ("registries_file", !self.registries_file.is_null()),
            ("config_json", !self.config_json.is_null() || self.config_json_len != 0),
            ("author", !self.author.is_null()),
            ("comment", !self.comment.is_null()),
            ("created", !self.created.is_null()),
            ("max_bytes", self.max_bytes != 0),
            ("max_entries", self.max_entries != 0),
            ("max_ratio", self.max_ratio != 0),
            ("owner", self.owner != 0),
        ];
        for (field, set) in fields {
            if set && !call.fields().contains(&field) {
                let message = format!("`opts.{field}` is set, but is not for {}", call.function());
                return Err(invalid(message));
            }
        }
        Ok(())
    }

    /// # Safety
    /// The pointers in the struct are as the header asks, for `'a`.
    unsafe fn convert<'a>(&self) -> Result<Choices<'a>> {
        // SAFETY: passed on to the caller.
        let (config, credentials) = unsafe {
            (
                optional_bytes(self.config_json, self.config_json_len, "opts.config_json")?,
                (
                    optional_text(self.username, "opts.username")?,
                    optional_text(self.password, "opts.password")?,
                ),
            )
        };
        let config = config.map(serde_json::from_slice).transpose();
        // SAFETY: passed on to the caller.
        unsafe {
            Ok(Choices {
                all: self.flags & LOCULE_PRUNE_ALL != 0,
                name: optional_text(self.name, "opts.name")?,
                from: optional_text(self.from, "opts.from")?,
                platform: optional_text(self.platform, "opts.platform")?,
                progress: self.progress,
                progress_user: Some(self.progress_user),
                cancel: cancel::optional(self.cancel),
                timeout: option_timeout(self.timeout_ms),
                packing: match self.compression {
                    LOCULE_COMPRESSION_GZIP => Packing::Gzip,
                    LOCULE_COMPRESSION_ZSTD => Packing::Zstd,
                    LOCULE_COMPRESSION_NONE => Packing::None,
                    other => {
                        let message = format!("`opts.compression` {other} is unknown");
                        return Err(unsupported(message));
                    }
                },
                credentials: match credentials {
                    (None, None) => None,
                    (user, Some(password)) => Some((user.unwrap_or(""), password)),
                    (Some(_), None) => {
                        return Err(invalid("`opts.username` is set, but `opts.password` is not"));
                    }
                },
                auth_file: optional_path(self.auth_file),
                ca_file: optional_path(self.ca_file),
                registries_file: optional_path(self.registries_file),
                config: config
                    .map_err(|error| invalid(format!("`opts.config_json` is no JSON: {error}")))?,
                author: optional_text(self.author, "opts.author")?,
                comment: optional_text(self.comment, "opts.comment")?,
                created: optional_text(self.created, "opts.created")?,
                max_bytes: (self.max_bytes != 0).then_some(self.max_bytes),
                max_entries: (self.max_entries != 0).then_some(self.max_entries),
                max_ratio: (self.max_ratio != 0).then_some(self.max_ratio),
                owner: match self.owner {
                    LOCULE_OWNER_AUTO => Owner::Auto,
                    LOCULE_OWNER_IMAGE => Owner::Image,
                    LOCULE_OWNER_CALLER => Owner::Caller,
                    other => return Err(unsupported(format!("`opts.owner` {other} is unknown"))),
                },
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: locule_image_opts = {
        // SAFETY: zeros are a value of every field.
        let zeroed: locule_image_opts = unsafe { std::mem::zeroed() };
        locule_image_opts { size: size_of::<locule_image_opts>(), ..zeroed }
    };

    fn refusal(opts: &locule_image_opts, call: Call) -> Option<String> {
        // SAFETY: the tests set fields to constants of Rust.
        unsafe { choices(opts, call) }.err().map(|error| error.to_string())
    }

    #[test]
    fn a_field_is_refused_where_it_means_nothing() {
        let opts = locule_image_opts { name: c"alpine".as_ptr(), ..EMPTY };
        assert_eq!(refusal(&opts, Call::Load), None);
        let message = refusal(&opts, Call::Push).unwrap();
        assert!(message.contains("`opts.name`") && message.contains("locule_image_push"));
        let opts = locule_image_opts { max_bytes: 1, ..EMPTY };
        assert_eq!(refusal(&opts, Call::Unpack), None);
        assert!(refusal(&opts, Call::Pull).unwrap().contains("max_bytes"));
    }

    #[test]
    fn a_password_alone_is_a_token_and_a_user_alone_is_nothing() {
        let token = locule_image_opts { password: c"secret".as_ptr(), ..EMPTY };
        // SAFETY: constants.
        let choices = unsafe { choices(&token, Call::Pull) }.ok().unwrap();
        assert_eq!(choices.credentials, Some(("", "secret")));
        let user = locule_image_opts { username: c"me".as_ptr(), ..EMPTY };
        assert!(refusal(&user, Call::Pull).unwrap().contains("password"));
    }

    #[test]
    fn the_callback_sees_what_is_done_and_stops_it() {
        unsafe extern "C" fn callback(
            progress: *const locule_image_progress,
            user: *mut c_void,
        ) -> c_int {
            // SAFETY: the test below gives both.
            unsafe { *user.cast::<u64>() = (*progress).done };
            7
        }
        let mut seen = 0_u64;
        let opts = locule_image_opts {
            progress: Some(callback),
            progress_user: (&raw mut seen).cast(),
            ..EMPTY
        };
        // SAFETY: the struct and what it points to live on.
        let choices = unsafe { choices(&opts, Call::Load) }.ok().unwrap();
        let error = choices.tell(LOCULE_IMAGE_STEP_FETCH, "sha256:0", (5, 9), false).unwrap_err();
        assert_eq!((error.category(), seen), (Category::Callback, 5));
    }
}
