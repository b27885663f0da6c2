//! `linux.resources.hugepageLimits`.

use oci_spec::runtime::{LinuxHugepageLimit, LinuxResources};

use super::{Writer, or_max, wrong};
use crate::error::Result;

/// The page size becomes part of a file name, so nothing but a size passes.
pub(super) fn check(resources: &LinuxResources) -> Result<()> {
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = limit.page_size();
        let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
        let is_size = number.is_some_and(|n| {
            !n.is_empty() && !n.starts_with('0') && n.bytes().all(|byte| byte.is_ascii_digit())
        });
        if !is_size {
            return Err(wrong(
                format!("pageSize {size:?} is not a size such as \"2MB\""),
                format!("/linux/resources/hugepageLimits/{index}/pageSize"),
            ));
        }
    }
    Ok(())
}

pub(super) fn apply(limits: &[LinuxHugepageLimit], writer: &mut Writer<'_>) -> Result<()> {
    for (index, limit) in limits.iter().enumerate() {
        let pointer = format!("/linux/resources/hugepageLimits/{index}/limit");
        let place = writer.place("hugetlb", "hugetlb", &pointer)?;
        let size = limit.page_size();
        let (suffix, value) = match place.unified {
            true => ("max", or_max(limit.limit())),
            false => ("limit_in_bytes", limit.limit().max(-1).to_string()),
        };
        writer.put(place, &format!("hugetlb.{size}.{suffix}"), &value, &pointer)?;
        // Reservations too, where the kernel counts them (5.7): a process that reserves more
        // than the limit would else learn of it by SIGBUS.
        let reserved = format!("hugetlb.{size}.rsvd.{suffix}");
        match writer.try_put(place, &reserved, &value) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(writer.failed(place, &reserved, &value, &pointer, &error));
            }
            _ => {}
        }
    }
    Ok(())
}
