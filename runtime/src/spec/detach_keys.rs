//! `--detach-keys`: what is typed to leave a container that goes on.

/// Docker's.
const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Keys that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid value `{found}` for --detach-keys: expected characters or ctrl-CHARACTER with commas between, such as {DEFAULT}"
)]
pub(crate) struct NoKeys {
    found: String,
}

/// The sequence, and how much of it has been typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q`; nothing means that.
    ///
    /// # Errors
    /// A part that is neither one character nor `ctrl-` and one of `a-z`, `@`, `[`, `\`, `]`, `^`, `_`.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, NoKeys> {
        let text = text.filter(|text| !text.is_empty()).unwrap_or(DEFAULT);
        let key = |part: &str| match (part.strip_prefix("ctrl-"), part.as_bytes()) {
            (Some(key), _) => match key.as_bytes() {
                [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                [sign @ (b'@' | b'['..=b'_')] => Some(sign - b'@'),
                _ => None,
            },
            (None, [byte]) => Some(*byte),
            (None, _) => None,
        };
        let sequence = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        sequence.map(|sequence| Self { sequence, typed: 0 }).ok_or_else(|| NoKeys { found: text.to_owned() })
    }

    /// Takes what was typed; whether the sequence was complete in it, after which nothing is passed on. What may be its beginning is held
    /// back until more is typed.
    pub(crate) fn pass(&mut self, bytes: &[u8], on: &mut Vec<u8>) -> bool {
        for &byte in bytes {
            if self.sequence[self.typed] != byte {
                on.extend_from_slice(&self.sequence[..self.typed]);
                self.typed = 0;
            }
            if self.sequence[self.typed] == byte {
                self.typed += 1;
            } else {
                on.push(byte);
            }
            if self.typed == self.sequence.len() {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_parsed() {
        for (text, bytes) in [
            (None, &b"\x10\x11"[..]),
            (Some(""), b"\x10\x11"),
            (Some("a"), b"a"),
            (Some("ctrl-@,x,ctrl-["), b"\0x\x1b"),
        ] {
            assert_eq!(DetachKeys::parse(text).unwrap().sequence, bytes, "{text:?}");
        }
        for text in ["ctrl-", "ctrl-A", "ab", "ctrl-ab", ",", "a,,b", "ctrl-1"] {
            assert!(DetachKeys::parse(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn what_only_begins_like_it_is_passed_on() {
        let typed = |parts: &[&[u8]]| {
            let (mut keys, mut on) = (DetachKeys::parse(None).unwrap(), Vec::new());
            let detached = parts.iter().any(|part| keys.pass(part, &mut on));
            (on, detached)
        };
        assert_eq!(typed(&[b"ls\n"]), (b"ls\n".to_vec(), false));
        assert_eq!(typed(&[b"a\x10\x11b"]), (b"a".to_vec(), true));
        assert_eq!(typed(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(typed(&[b"a\x10", b"x"]), (b"a\x10x".to_vec(), false));
        assert_eq!(typed(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(typed(&[b"\x10"]), (Vec::new(), false));
    }
}
