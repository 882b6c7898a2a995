//! DNS messages, as far as a resolver needs them that knows a few names and passes on all else (RFC 1035).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const A: u16 = 1;
pub(super) const PTR: u16 = 12;
pub(super) const AAAA: u16 = 28;
const INTERNET: u16 = 1;

pub(super) const SERVER_FAILURE: u8 = 2;
pub(super) const NO_SUCH_NAME: u8 = 3;

/// What fits into a packet for who did not say more.
pub(super) const IN_A_PACKET: usize = 512;

/// How long others may remember a name, in seconds: a container may be gone soon.
const SECONDS: u32 = 5;

const HEADER: usize = 12;
const LONGEST_LABEL: u8 = 63;
const LONGEST_NAME: usize = 255;

/// The one question of a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// In lower case, without the dot at the end.
    pub(super) name: String,
    pub(super) kind: u16,
    /// Where it ends in the message.
    end: usize,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Address(IpAddr),
    Name(String),
}

/// Understands a query; None for all that is none, or asks for other than names of the Internet.
pub(super) fn parse(query: &[u8]) -> Option<Question> {
    let header: &[u8; HEADER] = query.first_chunk()?;
    let is_answer = header[2] & 0x80 != 0;
    let operation = header[2] >> 3 & 0xf;
    if is_answer || operation != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let (mut at, mut labels) = (HEADER, Vec::new());
    loop {
        let length = *query.get(at)?;
        at += 1;
        match length {
            0 => break,
            1..=LONGEST_LABEL => {
                let label = query.get(at..at + usize::from(length))?;
                labels.push(String::from_utf8_lossy(label).to_lowercase());
                at += usize::from(length);
            }
            _ => return None,
        }
        if at - HEADER > LONGEST_NAME {
            return None;
        }
    }
    let [k0, k1, c0, c1] = *query.get(at..)?.first_chunk()?;
    let question = Question { name: labels.join("."), kind: u16::from_be_bytes([k0, k1]), end: at + 4 };
    (u16::from_be_bytes([c0, c1]) == INTERNET).then_some(question)
}

/// An answer of ours; what is more than `limit` bytes is cut off, and said to be.
pub(super) fn answer(query: &[u8], question: &Question, answers: &[Answer], limit: usize) -> Vec<u8> {
    const OURS: u8 = 0x84;
    const CUT_OFF: u8 = 0x02;
    let mut message = reply(query, question, OURS, 0);
    let mut count: u16 = 0;
    for answer in answers {
        let (kind, data) = match answer {
            Answer::Address(IpAddr::V4(ip)) => (A, ip.octets().to_vec()),
            Answer::Address(IpAddr::V6(ip)) => (AAAA, ip.octets().to_vec()),
            Answer::Name(name) => (PTR, encoded(name)),
        };
        let Ok(length) = u16::try_from(data.len()) else { continue };
        // A pointer to the name in the question.
        let mut record = vec![0xc0, 12];
        record.extend(kind.to_be_bytes());
        record.extend(INTERNET.to_be_bytes());
        record.extend(SECONDS.to_be_bytes());
        record.extend(length.to_be_bytes());
        record.extend(data);
        if message.len() + record.len() > limit {
            message[2] |= CUT_OFF;
            break;
        }
        message.extend(record);
        count = count.saturating_add(1);
    }
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message
}

/// That there is no answer.
pub(super) fn failure(query: &[u8], question: &Question, code: u8) -> Vec<u8> {
    reply(query, question, 0x80, code)
}

fn reply(query: &[u8], question: &Question, flags: u8, code: u8) -> Vec<u8> {
    const WANTED: u8 = 0x01;
    const AVAILABLE: u8 = 0x80;
    let mut message = query[..question.end].to_vec();
    message[2] = flags | query[2] & WANTED;
    message[3] = AVAILABLE | code;
    message[6..HEADER].fill(0);
    message
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(usize::from(LONGEST_LABEL))];
        bytes.push(u8::try_from(label.len()).unwrap_or(LONGEST_LABEL));
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

/// Whether a message answers a query: its number, and the question.
pub(super) fn answers(message: &[u8], query: &[u8], question: &Question) -> bool {
    message.len() >= question.end
        && message[..2] == query[..2]
        && message[2] & 0x80 != 0
        && message[HEADER..question.end].eq_ignore_ascii_case(&query[HEADER..question.end])
}

/// The address that a name for looking up names stands for.
pub(super) fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<u8> = digits.split('.').rev().map(|part| part.parse().ok()).collect::<Option<_>>()?;
        return <[u8; 4]>::try_from(parts).ok().map(|bytes| Ipv4Addr::from(bytes).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let digit = |part: &str| (part.len() == 1).then(|| u128::from_str_radix(part, 16).ok()).flatten();
    let digits: Vec<u128> = digits.split('.').rev().map(digit).collect::<Option<_>>()?;
    (digits.len() == 32).then(|| Ipv6Addr::from(digits.iter().fold(0, |ip, digit| ip << 4 | digit)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(encoded(name));
        bytes.extend(kind.to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        bytes
    }

    #[test]
    fn a_query_is_understood_and_answered() {
        let bytes = query("Web.front", A);
        let question = parse(&bytes).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("web.front", A));
        let addresses = [Answer::Address("10.0.0.2".parse().unwrap()), Answer::Address("fd00::2".parse().unwrap())];
        let message = answer(&bytes, &question, &addresses, IN_A_PACKET);
        assert!(answers(&message, &bytes, &question));
        assert_eq!((&message[..4], &message[6..8]), (&[0xab, 0xcd, 0x85, 0x80][..], &[0, 2][..]));
        assert!(message.windows(4).any(|part| part == [10, 0, 0, 2]));
        let failed = failure(&bytes, &question, NO_SUCH_NAME);
        assert_eq!((failed[2], failed[3], failed.len()), (0x81, 0x83, bytes.len()));
        assert!(!answers(&bytes, &bytes, &question));
        let many = vec![addresses[0].clone(); 100];
        let cut = answer(&bytes, &question, &many, IN_A_PACKET);
        assert!(cut.len() <= IN_A_PACKET && cut[2] & 2 != 0 && cut[7] < 100);
    }

    #[test]
    fn addresses_are_read_backwards() {
        assert_eq!(reversed("2.0.90.10.in-addr.arpa"), Some("10.90.0.2".parse().unwrap()));
        let nibbles = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        assert_eq!(reversed(&nibbles), Some("fd00::2".parse().unwrap()));
        for name in
            ["", "in-addr.arpa", "1.2.3.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "256.0.0.1.in-addr.arpa", "1.ip6.arpa"]
        {
            assert_eq!(reversed(name), None, "{name}");
        }
    }

    #[test]
    fn any_bytes_are_a_query_or_none() {
        let mut random = test_inputs::Random::new(5);
        let base = query("a.web.front", A);
        let mut taken = 0;
        for _ in 0..50_000 {
            let mut bytes = base.clone();
            for _ in 0..random.below(4) {
                let at = random.within(bytes.len());
                bytes[at] = u8::try_from(random.below(256)).unwrap();
            }
            bytes.truncate(random.within(bytes.len() + 20));
            let Some(question) = parse(&bytes) else { continue };
            taken += 1;
            assert!(
                answer(&bytes, &question, &[Answer::Name(question.name.clone())], IN_A_PACKET).len() <= IN_A_PACKET + 4
            );
            assert!(!failure(&bytes, &question, SERVER_FAILURE).is_empty());
        }
        assert!(taken > 1000, "{taken}");
    }
}
