//! Who owns a file in the image, by who owns it on disk: the way back from what unpacking does.

use super::super::unpack::{IdRange, Ids};
use crate::{Category, Error, Result, Stage};

pub(super) struct Owners<'a>(pub(super) &'a Ids);

impl Owners<'_> {
    /// Whether ids on disk are others than in the image.
    pub(super) fn mapped(&self) -> bool {
        !matches!(self.0, Ids::Same)
    }

    /// The error says which id is the image's nowhere.
    pub(super) fn uid(&self, uid: u32) -> Result<u32> {
        match self.0 {
            Ids::Same => Ok(uid),
            Ids::Caller => Ok(0),
            Ids::Mapped { uids, .. } => inside(uids, uid, "user"),
        }
    }

    pub(super) fn gid(&self, gid: u32) -> Result<u32> {
        match self.0 {
            Ids::Same => Ok(gid),
            Ids::Caller => Ok(0),
            Ids::Mapped { gids, .. } => inside(gids, gid, "group"),
        }
    }
}

fn inside(ranges: &[IdRange], id: u32, whose: &str) -> Result<u32> {
    let found = ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.outside).filter(|offset| *offset < range.count)?;
        range.inside.checked_add(offset)
    });
    found.ok_or_else(|| {
        let message = format!("the image has no id for the {whose} {id}");
        Error::new(Category::Invalid, Stage::Image, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_goes_back_through_its_range() {
        let uids = vec![
            IdRange { inside: 0, outside: 1000, count: 1 },
            IdRange { inside: 1, outside: 100_000, count: 65_535 },
            IdRange { inside: u32::MAX, outside: 5, count: 2 },
        ];
        let ids = Ids::Mapped { uids, gids: vec![] };
        let owners = Owners(&ids);
        let inside = [(1000, 0), (100_000, 1), (165_534, 65_535), (5, u32::MAX)];
        for (outside, inside) in inside {
            assert_eq!(owners.uid(outside).unwrap(), inside);
        }
        for outside in [0, 6, 999, 1001, 99_999, 165_535, u32::MAX] {
            assert!(
                owners.uid(outside).unwrap_err().to_string().contains(&format!("user {outside}"))
            );
        }
        assert!(owners.gid(1000).is_err());
        assert_eq!(Owners(&Ids::Caller).uid(77).unwrap(), 0);
        assert_eq!(Owners(&Ids::Same).gid(77).unwrap(), 77);
    }
}
