//! The bytes of a tar stream: buffered, counted, and hashed as they come in.

use crate::{Budget, budget::Exceeded};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// Large enough that a small file is always written by one call, small enough for the second-level cache.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// Where a tar archive's bytes come from: a stream, or a file that can be skipped through.
pub(crate) trait Source {
    /// The next `length` bytes (at most [`BUFFER_BYTES`]), fewer only at the end of the stream.
    fn peek(&mut self, length: usize) -> io::Result<&[u8]>;
    /// Moves past bytes that were peeked at.
    fn consume(&mut self, length: usize);
    /// Moves past bytes unseen. False: the stream ended before.
    fn skip(&mut self, length: u64) -> io::Result<bool>;
}

/// A stream that is read once.
pub(super) struct Input<'a> {
    reader: &'a mut dyn Read,
    hasher: Sha256,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    budget: &'a Budget,
}

impl<'a> Input<'a> {
    pub(super) fn new(reader: &'a mut dyn Read, budget: &'a Budget) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { reader, hasher: Sha256::new(), buffer, start: 0, end: 0, budget }
    }

    /// Reads to the end; the sha256 of everything, in hexadecimal digits.
    pub(super) fn finish(mut self) -> io::Result<String> {
        while self.refill()? > 0 {
            self.start = self.end;
        }
        Ok(hex(&self.hasher.finalize()))
    }

    /// Reads once into the free end of the buffer.
    fn refill(&mut self) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let count = loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.budget.unpacked(count as u64).and_then(|()| self.budget.time_left()).map_err(too_much)?;
        self.hasher.update(&self.buffer[self.end..self.end + count]);
        self.end += count;
        Ok(count)
    }
}

impl Source for Input<'_> {
    fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        while self.end - self.start < length && self.refill()? > 0 {}
        Ok(&self.buffer[self.start..self.end.min(self.start + length)])
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
    }

    fn skip(&mut self, mut length: u64) -> io::Result<bool> {
        while length > 0 {
            let step = usize::try_from(length).map_or(BUFFER_BYTES, |length| length.min(BUFFER_BYTES));
            let found = self.peek(step)?.len();
            if found == 0 {
                return Ok(false);
            }
            self.consume(found);
            length -= found as u64;
        }
        Ok(true)
    }
}

fn too_much(bound: Exceeded) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, bound)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
