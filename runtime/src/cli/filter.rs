//! `--filter KEY=VALUE`, as `ps` and `images` take it.

/// A filter that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value `{found}` for --filter: expected KEY=VALUE, where KEY is one of {known}")]
pub(crate) struct FilterError {
    found: String,
    known: String,
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

    /// Whether all `label` filters hold, each `NAME` or `NAME=VALUE`. Unlike other keys, as with Docker, labels add up.
    pub(crate) fn labels(&self, label: impl Fn(&str) -> Option<String>) -> bool {
        self.values("label").all(|filter| match filter.split_once('=') {
            Some((name, value)) => label(name).as_deref() == Some(value),
            None => label(filter).is_some(),
        })
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(texts: &[&str]) -> Result<Filters, FilterError> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Filters::parse(&texts, &["name", "status", "label"])
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
        ] {
            assert_eq!(filters(texts).unwrap().labels(label), holds, "{texts:?}");
        }
    }

    #[test]
    fn other_filters_are_refused() {
        for text in ["name", "colour=red", "=x", ""] {
            let message = filters(&[text]).unwrap_err().to_string();
            let expected = format!(
                "invalid value `{text}` for --filter: expected KEY=VALUE, where KEY is one of name, status, label"
            );
            assert_eq!(message, expected);
        }
    }
}
