//! Netlink messages as bytes (netlink(7)): headers, and attributes that may hold others.

/// Of a message: it asks for something.
pub(super) const REQUEST: u16 = 0x1;
/// It is to be acknowledged.
pub(super) const ACKNOWLEDGE: u16 = 0x4;
/// All objects are to be listed.
pub(super) const DUMP: u16 = 0x300;
/// An object that is there already is changed.
pub(super) const REPLACE: u16 = 0x100;
/// An object is there already: an error.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// An object is made if it is missing.
pub(super) const CREATE: u16 = 0x400;
/// Behind the others.
pub(super) const APPEND: u16 = 0x800;

/// Answers: errno, or 0.
const ERROR: u16 = 2;
/// The end of a list.
const DONE: u16 = 3;

/// Flag of an answer: what is listed changed meanwhile, so that something may be missing or there twice.
const INTERRUPTED: u16 = 0x10;

const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;

/// Messages to be sent, one behind the other; numbered from 1.
#[derive(Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    /// Where the last one begins.
    last: usize,
    count: u32,
    /// Something is longer than its header can say.
    overflown: bool,
}

impl Messages {
    /// Begins a message; what follows belongs to it.
    pub(super) fn begin(&mut self, kind: u16, flags: u16, fixed: &[u8]) {
        self.count += 1;
        self.last = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.padded(fixed);
        self.set_length();
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, ATTRIBUTE_HEADER + value.len());
        self.padded(value);
        self.set_length();
    }

    /// A number as the kernel's own processor has it.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A number as netfilter wants it.
    pub(super) fn big(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A text with its NUL.
    pub(super) fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat());
    }

    /// An attribute that holds those which `inner` adds.
    pub(super) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.header(kind | NESTED, ATTRIBUTE_HEADER);
        inner(self);
        let length = self.short(self.bytes.len() - at);
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.set_length();
    }

    /// What comes first in an attribute that holds a structure and attributes.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.padded(bytes);
    }

    /// Adds a flag to the last message.
    pub(super) fn flag_last(&mut self, flag: u16) {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | flag;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// None if something does not fit.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        (!self.overflown).then_some(&self.bytes)
    }

    fn header(&mut self, kind: u16, length: usize) {
        let length = self.short(length);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
    }

    fn short(&mut self, length: usize) -> u16 {
        u16::try_from(length).unwrap_or_else(|_| {
            self.overflown = true;
            u16::MAX
        })
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn set_length(&mut self) {
        let Ok(length) = u32::try_from(self.bytes.len() - self.last) else {
            self.overflown = true;
            return;
        };
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// One message that the kernel sent.
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

impl Received<'_> {
    /// What an answer of the kind [`ERROR`] says: 0 or an errno.
    pub(super) fn errno(&self) -> Option<i32> {
        (self.kind == ERROR).then(|| self.code())
    }

    /// What the end of a list says, if this is it: 0, or why it ended early.
    pub(super) fn end(&self) -> Option<i32> {
        (self.kind == DONE).then(|| if self.body.is_empty() { 0 } else { self.code() })
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }

    fn code(&self) -> i32 {
        self.body.first_chunk().map_or(nix::libc::EPROTO, |bytes| i32::from_ne_bytes(*bytes).wrapping_neg())
    }
}

/// The messages in what was received.
pub(super) fn received(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let sequence = u32::from_ne_bytes([s0, s1, s2, s3]);
        Some(Received { kind: u16::from_ne_bytes([k0, k1]), flags: u16::from_ne_bytes([f0, f1]), sequence, body })
    })
}

/// The attributes behind a structure; what is cut off is passed over.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & KIND_MASK, value))
    })
}

/// The first attribute of a kind.
pub(super) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A text of the kernel's, which ends with a NUL.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut messages = Messages::default();
        messages.begin(18, ACKNOWLEDGE, &[1, 2, 3]);
        messages.text(3, "eth0");
        messages.nest(4, |inner| {
            inner.raw(&[9; 5]);
            inner.number(1, 7);
            inner.attribute(2, &[]);
        });
        messages.begin(19, 0, &[]);
        let bytes = messages.bytes().unwrap();
        let all: Vec<_> = received(bytes).collect();
        assert_eq!(all.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(18, 1), (19, 2)]);
        assert_eq!(&all[0].body[..4], [1, 2, 3, 0]);
        assert_eq!(text(find(&all[0].body[4..], 3).unwrap()), "eth0");
        let nested = find(&all[0].body[4..], 4).unwrap();
        assert_eq!(find(&nested[8..], 1), Some(&7_u32.to_ne_bytes()[..]));
        assert_eq!(find(&nested[8..], 2), Some(&[][..]));
        assert!(all[1].body.is_empty());
    }

    #[test]
    fn the_end_of_a_list_says_how_it_came() {
        let mut messages = Messages::default();
        messages.begin(DONE, INTERRUPTED, &(-nix::libc::ENOMEM).to_ne_bytes());
        messages.begin(DONE, 0, &[]);
        messages.begin(ERROR, 0, &(-nix::libc::EPERM).to_ne_bytes());
        let bytes = messages.bytes().unwrap();
        let said: Vec<_> = received(bytes).map(|one| (one.end(), one.errno(), one.is_interrupted())).collect();
        let expected =
            [(Some(nix::libc::ENOMEM), None, true), (Some(0), None, false), (None, Some(nix::libc::EPERM), false)];
        assert_eq!(said, expected);
    }

    #[test]
    fn any_bytes_come_to_an_end() {
        let mut random = test_inputs::Random::new(11);
        for _ in 0..20_000 {
            let length = usize::try_from(random.below(80)).unwrap();
            let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).unwrap() & 0x1f).collect();
            let read: usize = received(&bytes).map(|message| attributes(message.body).count() + 1).sum();
            assert!(read <= bytes.len(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let mut messages = Messages::default();
        messages.begin(1, 0, &[]);
        messages.attribute(1, &[0; 70_000]);
        assert!(messages.bytes().is_none());
    }
}
