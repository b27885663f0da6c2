//! Which user and groups `User` means, by the image's own files.
//!
//! Digits are a number, never somebody's name (CVE-2016-3697). A number, here or in the image's files,
//! is one from the first to the last character, and not the id that the kernel takes for "none". Lines
//! that are not like that name nobody.

use std::collections::HashSet;

use oci_spec::image::Config;

use super::{Overrides, invalid, wrong_image};
use crate::{Category, Error, Result};

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// All of its groups, `gid` first: a program that gives up its group must not get rid of it
    /// (CVE-2022-36109).
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Who said it, which decides the kind of the error.
#[derive(Clone, Copy)]
enum Said {
    ByCaller,
    ByImage,
}

impl Said {
    fn field(self) -> &'static str {
        match self {
            Said::ByCaller => "`user`",
            Said::ByImage => "the image's User",
        }
    }

    fn wrong(self, message: String) -> Error {
        let message = format!("{}: {message}", self.field());
        match self {
            Said::ByCaller => invalid(message),
            Said::ByImage => wrong_image(message).hint("give another one with `user`"),
        }
    }

    /// A name that is in no line.
    fn unknown(self, kind: &str, name: &str, path: &str, exists: bool) -> Error {
        let error = match exists {
            true => self.wrong(format!("no {kind} {name:?} is in the image's /{path}")),
            false => self.wrong(format!("the image has no /{path}, where {name:?} would be")),
        };
        match self {
            Said::ByCaller => error.with_category(Category::NotFound).hint("give a number"),
            Said::ByImage => error,
        }
    }

    /// A number, if it is one and not a name.
    fn number(self, text: &str) -> Result<Option<u32>> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(None);
        }
        match id(text) {
            Some(id) => Ok(Some(id)),
            None => Err(self.wrong(format!("{text} is no id: those end at {}", u32::MAX - 1))),
        }
    }
}

/// The user of `USER`, `USER:GROUP`, names or numbers; root if nobody says.
///
/// Without a group a user has those of the files, a numeric one that has a line in them too: so
/// image-spec's config.md says, and so other engines do.
pub(super) fn find(
    image: &Config,
    overrides: &Overrides,
    read: &dyn Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Result<User> {
    let (text, said) = match &overrides.user {
        Some(text) => (text.as_str(), Said::ByCaller),
        None => (image.user().as_deref().unwrap_or_default(), Said::ByImage),
    };
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let user = if user.is_empty() { "0" } else { user };

    let passwd = text_of(read, PASSWD)?;
    let mut accounts = passwd.iter().flat_map(|text| accounts(text));
    let number = said.number(user)?;
    let account = match number {
        Some(uid) => accounts.find(|account| account.uid == uid),
        None => accounts.find(|account| account.name == user),
    };
    let uid = match (number, &account) {
        (Some(uid), _) => uid,
        (None, Some(account)) => account.uid,
        (None, None) => return Err(said.unknown("user", user, PASSWD, passwd.is_some())),
    };
    let home = account.as_ref().map_or("/", |account| account.home).to_owned();

    if !group.is_empty() {
        let gid = match said.number(group)? {
            Some(gid) => gid,
            None => {
                let file = text_of(read, GROUP)?;
                let found = file.iter().flat_map(|text| groups(text)).find(|g| g.name == group);
                let unknown = || said.unknown("group", group, GROUP, file.is_some());
                found.map(|group| group.gid).ok_or_else(unknown)?
            }
        };
        return Ok(User { uid, gid, groups: vec![gid], home });
    }
    let Some(account) = account else {
        return Ok(User { uid, gid: 0, groups: vec![0], home });
    };
    let file = text_of(read, GROUP)?;
    let of_user = file.iter().flat_map(|text| groups(text)).filter(|group| {
        let mut members = group.members.split(',');
        members.any(|member| member == account.name)
    });
    let mut seen = HashSet::new();
    let all = std::iter::once(account.gid).chain(of_user.map(|group| group.gid));
    let groups = all.filter(|gid| seen.insert(*gid)).collect();
    Ok(User { uid, gid: account.gid, groups, home })
}

fn text_of(read: &dyn Fn(&str) -> Result<Option<Vec<u8>>>, path: &str) -> Result<Option<String>> {
    let bytes = read(path).map_err(|error| error.context("look for the user"))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// A number from 0 to the last id. `u32::MAX` is "none".
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

/// Lines of either file that name somebody: no remarks, no `+` and `-` of NIS.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.starts_with(['#', '+', '-', ':']))
        .map(|line| line.split(':').collect())
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    lines(text).filter_map(|fields| {
        let [name, _, uid, gid, rest @ ..] = &fields[..] else { return None };
        let home = rest.get(1).copied();
        let home = home.filter(|home| home.starts_with('/') && !home.contains('\0'));
        Some(Account { name, uid: id(uid)?, gid: id(gid)?, home: home.unwrap_or("/") })
    })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    lines(text).filter_map(|fields| {
        let [name, _, gid, rest @ ..] = &fields[..] else { return None };
        Some(Group { name, gid: id(gid)?, members: rest.first().copied().unwrap_or_default() })
    })
}
