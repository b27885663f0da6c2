//! Paths as text. A plugin has no files to look at: symbolic links are not followed, so an allowed
//! path is to be one in which nobody untrusted can make any.

/// The components of an absolute path without `.`, `..` and what they take back.
pub fn normal(path: &str) -> Vec<&str> {
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    components
}

/// Whether a normal path is another or below it.
pub fn is_at_or_below(path: &[&str], top: &[&str]) -> bool {
    path.starts_with(top)
}

/// Whether a relative path never leaves the directory that it starts from.
pub fn stays_inside(path: &str) -> bool {
    let mut depth = 0_usize;
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(path: &str, top: &str) -> bool {
        is_at_or_below(&normal(path), &normal(top))
    }

    #[test]
    fn a_path_is_within_itself_and_those_above_it() {
        assert!(within("/srv/data", "/srv/data"));
        assert!(within("/srv/data/logs", "/srv/data/"));
        assert!(within("//srv/./data/logs/../images", "/srv/data"));
        assert!(within("/anything", "/"));
    }

    #[test]
    fn neither_a_common_beginning_nor_the_way_back_lets_a_path_in() {
        assert!(!within("/srv/database", "/srv/data"));
        assert!(!within("/srv", "/srv/data"));
        assert!(!within("/srv/data/../../etc", "/srv/data"));
        assert!(!within("/../etc", "/srv"));
    }

    #[test]
    fn a_relative_path_is_inside_until_it_goes_above_its_start() {
        assert!(stays_inside("volumes/data"));
        assert!(stays_inside("a/../b"));
        assert!(!stays_inside(".."));
        assert!(!stays_inside("a/../../etc"));
        assert!(!stays_inside("../bundle/data"));
    }
}
