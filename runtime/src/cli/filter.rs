//! `--filter KEY=VALUE`, as `ps` and `images` take it.

/// A filter that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid filter `{found}`: expected KEY=VALUE, where KEY is one of {known}")]
pub(crate) struct FilterError {
    found: String,
    known: String,
}

/// What every filter is; which keys there are, the command knows.
pub(super) fn parse_pair(text: &str) -> Result<String, &'static str> {
    if text.contains('=') { Ok(text.to_owned()) } else { Err("expected KEY=VALUE") }
}

/// Filters by key. Those of one key are alternatives; every key must have one that holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    pairs: Vec<(String, String)>,
}

impl Filters {
    /// Parses all filters of a command that knows these keys.
    ///
    /// # Errors
    /// No `=`, or another key.
    pub(crate) fn parse(texts: &[String], known: &[&str]) -> Result<Self, FilterError> {
        let pair = |text: &String| match text.split_once('=') {
            Some((key, value)) if known.contains(&key.trim()) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            _ => Err(FilterError { found: text.clone(), known: known.join(", ") }),
        };
        texts.iter().map(pair).collect::<Result<_, _>>().map(|pairs| Self { pairs })
    }

    /// Whether nothing was asked of `key`, or one of its filters holds.
    pub(crate) fn any(&self, key: &str, holds: impl Fn(&str) -> bool) -> bool {
        let mut values = self.values(key).peekable();
        values.peek().is_none() || values.any(holds)
    }

    /// Whether all `label` filters hold, each `NAME` or `NAME=VALUE`, and none of `label!`. Unlike other keys, as with Docker, labels
    /// add up.
    pub(crate) fn labels(&self, label: impl Fn(&str) -> Option<String>) -> bool {
        let has = |filter: &str| match filter.split_once('=') {
            Some((name, value)) => label(name).as_deref() == Some(value),
            None => label(filter).is_some(),
        };
        self.values("label").all(has) && !self.values("label!").any(has)
    }

    /// All that was asked of `key`.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

/// A pattern as a shell has it, of which no star goes beyond a slash; path.Match of Go.
pub(crate) fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Where the last star stands in both, to go on from with one character more.
    let (mut at, mut in_text, mut star) = (0, 0, None);
    while in_text < text.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, in_text));
            at += 1;
        } else if let Some(next) = one_matches(&pattern, at, text[in_text]) {
            (at, in_text) = (next, in_text + 1);
        } else {
            match star {
                Some((begin, from)) if text[from] != '/' => {
                    (at, in_text) = (begin + 1, from + 1);
                    star = Some((begin, from + 1));
                }
                _ => return false,
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

/// Where the pattern goes on, if what is there matches the character.
fn one_matches(pattern: &[char], at: usize, character: char) -> Option<usize> {
    match *pattern.get(at)? {
        '?' => (character != '/').then_some(at + 1),
        '\\' => (*pattern.get(at + 1)? == character).then_some(at + 2),
        '[' => {
            let end = at + 2 + pattern.get(at + 2..)?.iter().position(|c| *c == ']')?;
            let (negated, set) = match &pattern[at + 1..end] {
                ['^', set @ ..] => (true, set),
                set => (false, set),
            };
            let ranges = set.windows(3).any(|range| range[1] == '-' && (range[0]..=range[2]).contains(&character));
            ((set.contains(&character) || ranges) != negated && character != '/').then_some(end + 1)
        }
        other => (other == character).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_a_shells_do() {
        for (pattern, text, matches) in [
            ("busy*", "busybox", true),
            ("busy*", "busybox:1", true),
            ("*:latest", "busybox:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("localhost:5000/*", "localhost:5000/a", true),
            ("localhost:5000/*", "localhost:5000/a/b", false),
            ("b?sybox", "busybox", true),
            ("b[a-u]sybox", "busybox", true),
            ("b[^u]sybox", "busybox", false),
            ("b[ab]", "ba", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "", true),
            ("*", "", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
        ] {
            assert_eq!(is_like(pattern, text), matches, "{pattern} {text}");
        }
        let long = "a".repeat(50_000);
        assert!(!is_like(&"a*".repeat(200), &format!("{long}/b")));
    }

    fn filters(texts: &[&str]) -> Result<Filters, FilterError> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Filters::parse(&texts, &["name", "status", "label", "label!"])
    }

    #[test]
    fn filters_of_one_key_are_alternatives() {
        let filters = filters(&["status=running", "status=exited", "name=web"]).unwrap();
        assert!(filters.any("status", |status| status == "exited"));
        assert!(!filters.any("status", |status| status == "created"));
        assert!(filters.any("id", |_| false));
        assert!(!filters.any("name", |_| false));
    }

    #[test]
    fn labels_add_up() {
        let label = |name: &str| (name == "tier").then(|| "front".to_owned());
        for (texts, holds) in [
            (&[][..], true),
            (&["label=tier"], true),
            (&["label=tier=front"], true),
            (&["label=tier=back"], false),
            (&["label=tier", "label=other"], false),
            (&["label!=other"], true),
            (&["label!=tier"], false),
            (&["label!=tier=back"], true),
        ] {
            assert_eq!(filters(texts).unwrap().labels(label), holds, "{texts:?}");
        }
    }

    #[test]
    fn other_filters_are_refused() {
        for text in ["name", "colour=red", "=x", ""] {
            let message = filters(&[text]).unwrap_err().to_string();
            let expected =
                format!("invalid filter `{text}`: expected KEY=VALUE, where KEY is one of name, status, label, label!");
            assert_eq!(message, expected);
        }
    }
}
