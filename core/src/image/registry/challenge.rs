//! What a registry wants to be told about who asks: `WWW-Authenticate` (RFC 9110, section 11.6.1).

/// One challenge of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(super) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.parameters.iter();
        all.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header. What cannot be understood is left out.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    for part in split(header) {
        // Either the next parameter, or a scheme, with its first one after a space.
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = name.trim_end();
        let name = match name.split_once([' ', '\t']) {
            Some((scheme, name)) => {
                begin(&mut challenges, scheme);
                name.trim_start()
            }
            None if !part.contains('=') => {
                begin(&mut challenges, name);
                continue;
            }
            None => name,
        };
        if let Some(challenge) = challenges.last_mut() {
            challenge.parameters.push((name.to_owned(), unquote(value.trim())));
        }
    }
    challenges
}

fn begin(challenges: &mut Vec<Challenge>, scheme: &str) {
    challenges.push(Challenge { scheme: scheme.to_owned(), parameters: Vec::new() });
}

/// At the commas that are in no quotes.
fn split(header: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = header.split(move |c: char| {
        let escapes = quoted && c == '\\' && !escaped;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = escapes;
        c == ',' && !quoted
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_challenges_and_quoted_commas_are_told_apart() {
        let header = r#"Basic realm="a, \"b\"" , bearer  Realm="https://t.example/x?y=z",service=s ,
            scope="repository:a/b:pull,push",,Negotiate, Other abc=="#;
        let found = parse(header);
        let names: Vec<_> = found.iter().map(|one| one.scheme.as_str()).collect();
        assert_eq!(names, ["Basic", "bearer", "Negotiate", "Other"]);
        assert_eq!(found[0].get("realm"), Some("a, \"b\""));
        assert!(found[1].is("Bearer"));
        assert_eq!(found[1].get("realm"), Some("https://t.example/x?y=z"));
        assert_eq!(found[1].get("service"), Some("s"));
        assert_eq!(found[1].get("scope"), Some("repository:a/b:pull,push"));
    }

    #[test]
    fn nonsense_gives_no_parameters_and_no_panic() {
        for header in
            ["", ",", "=", "\"", "a=\"\\", "Bearer", "Bearer realm", "Bearer =\"x", " = ,=="]
        {
            for challenge in parse(header) {
                assert_eq!(challenge.get("realm").unwrap_or_default(), "", "{header}");
            }
        }
    }
}
