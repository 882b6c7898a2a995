//! What chance makes of an input: bytes and words taken out, put in, repeated, exchanged.

use crate::Random;
use std::ops::Range;

/// What parsers of all kinds stumble over.
const WORDS: [&str; 36] = [
    "",
    "0",
    "-1",
    "1",
    "00",
    "+1",
    "255",
    "256",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
    "0.1",
    "9999999999999999999",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\0",
    "\"",
    "'",
    "\\",
    "\u{feff}",
    "é",
    "\u{2028}",
    "..",
    "/",
    "null",
    "[]",
    "{}",
    "true",
    "%s",
];
/// A part that is repeated fills at most so much.
const REPEATED_BYTES: usize = 32 << 10;
/// Beyond this nothing is added.
const LONGEST: usize = 256 << 10;

/// One of the seeds, changed in a few places.
pub(crate) fn input(random: &mut Random, seeds: &[&[u8]], words: &[&str]) -> Vec<u8> {
    let mut bytes = random.one(seeds).to_vec();
    for _ in 0..1 + random.below(5) {
        change(random, &mut bytes, seeds, words);
    }
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[&[u8]], words: &[&str]) {
    let at = random.within(bytes.len() + 1);
    match random.below(if bytes.len() > LONGEST { 4 } else { 12 }) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(range(random, bytes.len()))),
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.next().to_le_bytes()[0];
            }
        }
        4 => repeat(random, bytes),
        5 => {
            let part = bytes[range(random, bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        6 => {
            let other = random.one(seeds);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.within(other.len() + 1)..]);
        }
        7 => {
            let other = random.one(seeds);
            let part = &other[range(random, other.len())];
            bytes.splice(at..at, part.iter().copied());
        }
        8 | 9 => drop(bytes.splice(at..at, word(random, words).bytes())),
        _ => {
            let replaced = token(bytes, at);
            bytes.splice(replaced, word(random, words).bytes());
        }
    }
}

fn word<'a>(random: &mut Random, words: &[&'a str]) -> &'a str {
    if words.is_empty() || random.below(3) == 0 { random.one(&WORDS) } else { random.one(words) }
}

/// A part, as a rule a short one.
fn range(random: &mut Random, length: usize) -> Range<usize> {
    let start = random.within(length + 1);
    let longest = if random.below(4) == 0 { length - start } else { (length - start).min(16) };
    start..start + random.within(longest + 1)
}

fn repeat(random: &mut Random, bytes: &mut Vec<u8>) {
    let part = range(random, bytes.len());
    let most = if random.below(8) == 0 { REPEATED_BYTES } else { 256 };
    let (end, repeated) = (part.end, bytes[part].to_vec());
    let count = random.within(most / repeated.len().max(1) + 1);
    bytes.splice(end..end, repeated.repeat(count));
}

/// The word or the single character around a place.
fn token(bytes: &[u8], at: usize) -> Range<usize> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if !bytes.get(at).is_some_and(is_word) {
        return at..bytes.len().min(at + 1);
    }
    let start = bytes[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
    let end = bytes[at..].iter().position(|byte| !is_word(byte)).map_or(bytes.len(), |after| at + after);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_input_and_every_change_happens() {
        let seeds: [&[u8]; 2] = [b"name=value, other=12", b""];
        let made = |seed| input(&mut Random::new(seed), &seeds, &["word"]);
        assert!((0..100).all(|seed| made(seed) == made(seed)));
        let all: Vec<_> = (0..1000).map(made).collect();
        assert!(all.iter().any(|bytes| bytes.windows(4).any(|part| part == b"word")));
        assert!(all.iter().any(Vec::is_empty) && all.iter().any(|bytes| bytes.len() > 1000));
    }

    #[test]
    fn tokens_are_whole_words() {
        assert_eq!([0, 3, 4, 5, 8, 9].map(|at| token(b"abc (d_1)", at)), [0..3, 3..4, 4..5, 5..8, 8..9, 9..9]);
    }
}
