//! Lines of a `schemata` file: `L3:0=7f0;1=1f`, `MB:0=20;1=70`.

use super::POINTER;
use crate::spec::oci::LinuxIntelRdt;
use crate::{Category, Error, Result, Stage};

/// A line that a configuration asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) text: &'a str,
    pub(super) pointer: String,
    /// In a group that was there before it is compared, not written.
    pub(super) must_match: bool,
}

/// The lines in the order in which they are written.
pub(super) fn lines(rdt: &LinuxIntelRdt) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for (name, schema) in
        [("l3CacheSchema", rdt.l3_cache_schema()), ("memBwSchema", rdt.mem_bw_schema())]
    {
        // The first may hold several lines, though it should not.
        for text in schema.iter().flat_map(|text| text.lines()).map(str::trim) {
            if !text.is_empty() {
                lines.push(Line { text, pointer: format!("{POINTER}/{name}"), must_match: true });
            }
        }
    }
    for (index, text) in rdt.schemata().iter().flatten().enumerate() {
        let pointer = format!("{POINTER}/schemata/{index}");
        lines.push(Line { text, pointer, must_match: false });
    }
    lines
}

impl Line<'_> {
    /// Compares with a `schemata` file: every domain that this line names must have its value.
    pub(super) fn check(&self, file: &str) -> Result<()> {
        let refuse = |found: &str| {
            let message = format!(
                "the resctrl group exists with {found}, which does not match {:?}",
                self.text
            );
            Err(Error::new(Category::Exists, Stage::Settings, message)
                .with_errno(libc::EEXIST)
                .at(self.pointer.clone()))
        };
        let Some((resource, wanted)) = self.text.split_once(':') else {
            return refuse("other lines");
        };
        let found = file.lines().find_map(|line| {
            let (name, domains) = line.split_once(':')?;
            (name.trim() == resource.trim()).then_some(domains.trim())
        });
        let Some(found) = found else { return refuse(&format!("no line {resource:?}")) };
        let value_of = |domain: &str| {
            found.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                (name.trim() == domain.trim()).then_some(value)
            })
        };
        for pair in wanted.split(';').filter(|pair| !pair.trim().is_empty()) {
            let matches = pair.split_once('=').is_some_and(|(domain, value)| {
                value_of(domain).is_some_and(|found| plain(found) == plain(value))
            });
            if !matches {
                return refuse(&format!("{resource}:{found}"));
            }
        }
        Ok(())
    }
}

/// A number without what makes equal ones look different.
fn plain(number: &str) -> String {
    let number = number.trim().to_ascii_lowercase();
    let number = number.strip_prefix("0x").unwrap_or(&number);
    match number.trim_start_matches('0') {
        "" => "0".to_owned(),
        number => number.to_owned(),
    }
}
