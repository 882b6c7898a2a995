//! What is wrong with a file, and where.

use std::fmt;

/// The first thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Both from 1; None: it is of the file as a whole.
    place: Option<(usize, usize)>,
    message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Mistake {}

impl Mistake {
    /// Without its place.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// At a byte of the text.
    pub(super) fn at(text: &str, byte: usize, message: impl Into<String>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { place: Some((line, column)), message: message.into() }
    }

    /// Of the whole.
    pub(super) fn at_begin(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into() }
    }

    /// What the parser says, with the nearest right name where one is wrong.
    pub(super) fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let message = nearer(error.message()).unwrap_or_else(|| error.message().trim_end().replace('\n', "; "));
        match error.span() {
            Some(span) => Self::at(text, span.start, message),
            None => Self::at_begin(message),
        }
    }
}

/// What serde says of a name that it does not know, in our words.
fn nearer(message: &str) -> Option<String> {
    let (what, rest) = match message.strip_prefix("unknown field ") {
        Some(rest) => ("key", rest),
        None => ("value", message.strip_prefix("unknown variant ")?),
    };
    // `a`, expected one of `b`, `c`
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let found = quoted.next()?;
    Some(unknown(what, found, &quoted.collect::<Vec<_>>()))
}

/// A name that is none of those that there are, and which was probably meant.
pub(super) fn unknown(what: &str, found: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (strsim::damerau_levenshtein(found, name), name)).min();
    let hint = match nearest {
        Some((distance, name)) if distance <= 1 + found.chars().count() / 3 => format!("; did you mean `{name}`?"),
        _ if known.is_empty() => String::new(),
        _ => format!("; there are {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    format!("there is no {what} `{found}`{hint}")
}
