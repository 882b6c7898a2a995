//! What of a file is no hole.

use rustix::{
    fd::OwnedFd,
    fs::{SeekFrom, Stat, seek},
    io::{Errno, Result},
};

/// Less than this in holes is not worth a map.
const WORTH_BYTES: u64 = 1 << 20;
/// As many as a reader takes. Beyond, the smallest holes become zeros.
const MOST: usize = 30_000;

/// Offset and length of each, ascending.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    pieces: Vec<(u64, u64)>,
    /// Of the whole file.
    size: u64,
}

impl Pieces {
    /// None: it has no holes worth naming.
    pub(super) fn of(file: &OwnedFd, found: &Stat) -> Result<Option<Self>> {
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let stored = u64::try_from(found.st_blocks).unwrap_or(0) * 512;
        if stored + WORTH_BYTES > size {
            return Ok(None);
        }
        let mut pieces = Self { pieces: Vec::new(), size };
        let (mut at, mut least_hole) = (0, 0);
        while at < size {
            let begin = match seek(file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break,
                // A file system that knows of no holes.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
                begin => begin?.min(size),
            };
            let end = seek(file, SeekFrom::Hole(begin)).unwrap_or(size).clamp(begin, size);
            if end == begin {
                break;
            }
            pieces.pieces.push((begin, end - begin));
            if pieces.pieces.len() > 2 * MOST {
                pieces.join_to(MOST, &mut least_hole);
            }
            at = end;
        }
        pieces.join_to(MOST, &mut least_hole);
        Ok(Some(pieces))
    }

    /// Joins neighbours, those with the smallest holes between them first, until there are at most so many.
    fn join_to(&mut self, most: usize, least_hole: &mut u64) {
        while self.pieces.len() > most {
            *least_hole = (*least_hole * 2).max(4096);
            let mut joined: Vec<(u64, u64)> = Vec::with_capacity(self.pieces.len());
            for &(begin, length) in &self.pieces {
                match joined.last_mut() {
                    Some((first, whole)) if begin - (*first + *whole) <= *least_hole => {
                        *whole = begin + length - *first;
                    }
                    _ => joined.push((begin, length)),
                }
            }
            self.pieces = joined;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.pieces.iter().copied()
    }

    /// How much is stored of them.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, length)| length).sum()
    }

    /// Format 1.0: how many, then offset and length of each, a line each, to whole blocks. One of no length at the end says how long
    /// the file is.
    pub(super) fn map(&self) -> Vec<u8> {
        let mut map = format!("{}\n", self.pieces.len() + 1).into_bytes();
        for (offset, length) in self.iter().chain([(self.size, 0)]) {
            map.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
        }
        map.resize(map.len().next_multiple_of(512), 0);
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_holes_are_filled_before_large_ones() {
        let mut pieces = Pieces { pieces: (0..100).map(|n| (n * 8192, 4096)).collect(), size: 1 << 30 };
        pieces.pieces.push((1 << 29, 10));
        let stored = pieces.bytes();
        let mut least = 0;
        pieces.join_to(10, &mut least);
        assert_eq!(pieces.pieces, [(0, 99 * 8192 + 4096), (1 << 29, 10)]);
        assert!(pieces.bytes() > stored);
        let map = String::from_utf8(pieces.map()).unwrap();
        assert!(map.starts_with("3\n0\n815104\n536870912\n10\n1073741824\n0\n"), "{map}");
        assert_eq!(map.len(), 512);
    }
}
