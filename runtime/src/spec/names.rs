//! Container ids, and names for containers whose user gave none.

/// How much of an id is shown where `--no-trunc` is not given.
pub(crate) const SHORT_ID_LENGTH: usize = 12;

/// A name or id that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NameError {
    /// Not of the form that Docker takes.
    #[error(
        "invalid {what} `{found}`: expected two or more letters, digits, `_`, `.` or `-`, the first a letter or digit"
    )]
    Invalid { what: &'static str, found: String },
    /// The kernel gave no random bytes.
    #[error("the kernel gives no random bytes: {0}")]
    NoRandom(getrandom::Error),
}

/// Makes a new id: 32 random bytes as 64 lower-case hexadecimal digits.
///
/// Like Docker, never one whose short form consists of decimal digits only: as a host name, or in an unquoted file of
/// settings, such an id would be taken for a number.
pub(crate) fn new_id() -> Result<String, NameError> {
    loop {
        let id = hex(&random::<32>()?);
        if short_id(&id).bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

/// Makes a random name such as `amber_potter`; 4096 of them exist, so the caller asks again when one is taken and adds a
/// number when all are.
pub(crate) fn random_name() -> Result<String, NameError> {
    let [first, second] = random::<2>()?;
    Ok(format!("{}_{}", pick(ADJECTIVES, first), pick(NOUNS, second)))
}

fn pick(words: &'static str, number: u8) -> &'static str {
    words.split(' ').nth(usize::from(number) % WORDS).unwrap_or_default()
}

/// Checks the name of a container or volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`. `what` is named in the error.
pub(crate) fn validate(what: &'static str, name: &str) -> Result<(), NameError> {
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if valid { Ok(()) } else { Err(NameError::Invalid { what, found: name.to_owned() }) }
}

/// Whether `text` is a whole id, of a container or of an anonymous volume.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The first twelve digits of an id, after the `sha256:` of a digest if there is one.
pub(crate) fn short_id(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..SHORT_ID_LENGTH).unwrap_or(hex)
}

fn random<const N: usize>() -> Result<[u8; N], NameError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NameError::NoRandom)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// How many words each list has.
const WORDS: usize = 64;

/// What a potter, or the sea, makes of a thing.
const ADJECTIVES: &str = "\
    amber ancient azure baked balanced banded beaded bright bronze burnished calm carved cedar clear coastal copper \
    coral corked crimson curved deep drifting earthen elegant fired fluted gilded glazed golden graceful handled \
    hollow honeyed incised ivory laden lidded lucky mellow narrow noble ochre olive painted patient polished quiet \
    ribbed rosy round sailing salty sealed slender smooth spiral steady sunken tall tidal turned umber warm windy";

/// Vessels, those who make and carry them, and where they travel.
const NOUNS: &str = "\
    amphora anchor aryballos beacon bowl breeze brine captain cargo chalice clay cork cove crew dolphin dolium ewer \
    flask galley gull handle harbour helm hydria isle jar jug keel kiln krater kylix lagoon lekythos lighthouse \
    lantern mast merchant mooring oar oinochoe olpe pelike pilot pitcher pithos port potter psykter reef rhyton \
    rigging rudder sail sailor shard shore skyphos stamnos strait tide trader urn wave wheel";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_hexadecimal_and_differ() {
        let ids: HashSet<String> = (0..100).map(|_| new_id().unwrap()).collect();
        assert_eq!(ids.len(), 100);
        for id in ids {
            assert!(is_id(&id), "{id}");
            assert!(short_id(&id).parse::<u64>().is_err(), "{id}");
        }
        for text in ["", "web", &"g".repeat(64), &"A".repeat(64), &"a".repeat(63)] {
            assert!(!is_id(text), "{text}");
        }
        assert_eq!(hex(&[0, 0x0f, 0xa5, 0xff]), "000fa5ff");
    }

    #[test]
    fn the_words_differ_and_make_valid_names() {
        for words in [ADJECTIVES, NOUNS] {
            assert_eq!(words.split(' ').collect::<HashSet<_>>().len(), WORDS);
            assert!(
                words.split(' ').all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
            );
        }
        let name = random_name().unwrap();
        validate("container name", &name).unwrap();
        assert_eq!(name.matches('_').count(), 1, "{name}");
    }

    #[test]
    fn names_are_checked_as_docker_does() {
        for name in ["web", "a1", "0b", "my_app.v1-2"] {
            assert!(validate("container name", name).is_ok(), "{name}");
        }
        for name in ["", "a", "-a", "_a", ".a", "a b", "a/b", "a:b", "ä1", "a\n"] {
            assert!(validate("container name", name).is_err(), "{name:?}");
        }
        let message = validate("volume name", "a/b").unwrap_err().to_string();
        assert!(message.starts_with("invalid volume name `a/b`: expected"), "{message}");
    }

    #[test]
    fn ids_are_shortened() {
        assert_eq!(short_id("0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("0123"), "0123");
    }
}
