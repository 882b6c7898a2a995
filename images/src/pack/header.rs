//! Headers of an archive: the old form, and PAX records before it for what has no room there.

use std::io;

use rustix::fs::Stat;
use tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// A name in the old form.
const NAME_BYTES: usize = 100;
/// The largest number that it has for an owner, and for a size and a time.
const OWNER_MOST: u64 = 0o7_777_777;
const SIZE_MOST: u64 = 0o77_777_777_777;

/// What a header says.
pub(super) struct Meta<'a> {
    pub(super) kind: EntryType,
    pub(super) path: &'a [u8],
    /// What a link leads to.
    pub(super) link: &'a [u8],
    /// Bytes that follow.
    pub(super) size: u64,
    /// Of a file whose holes are left out: its own length.
    pub(super) real_size: Option<u64>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
}

impl<'a> Meta<'a> {
    pub(super) fn of(kind: EntryType, path: &'a [u8], found: &Stat) -> Self {
        Self {
            kind,
            path,
            link: b"",
            size: 0,
            real_size: None,
            mode: found.st_mode & 0o7777,
            uid: found.st_uid,
            gid: found.st_gid,
            mtime: found.st_mtime,
            device: (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev)),
        }
    }

    /// A mark of a layer's.
    pub(super) fn empty_file(path: &'a [u8]) -> Self {
        Self {
            kind: EntryType::Regular,
            path,
            link: b"",
            size: 0,
            real_size: None,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: 0,
            device: (0, 0),
        }
    }

    /// Whole blocks.
    pub(super) fn bytes(&self, attributes: &[(Vec<u8>, Vec<u8>)]) -> io::Result<Vec<u8>> {
        let records = self.records(attributes);
        let mut bytes = Vec::new();
        if !records.is_empty() {
            let of_records = Self { size: records.len() as u64, ..Self::empty_file(b"PaxHeaders.0/entry") };
            bytes.extend_from_slice(of_records.old(EntryType::XHeader)?.as_bytes());
            bytes.extend_from_slice(&records);
            bytes.resize(bytes.len() + padding(records.len() as u64), 0);
        }
        bytes.extend_from_slice(self.old(self.kind)?.as_bytes());
        Ok(bytes)
    }

    fn old(&self, kind: EntryType) -> io::Result<Header> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        let old = header.as_old_mut();
        put(&mut old.name, self.path);
        put(&mut old.linkname, self.link);
        header.set_mode(self.mode);
        header.set_uid(u64::from(self.uid).min(OWNER_MOST));
        header.set_gid(u64::from(self.gid).min(OWNER_MOST));
        header.set_size(self.size.min(SIZE_MOST));
        header.set_mtime(u64::try_from(self.mtime).unwrap_or(0).min(SIZE_MOST));
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(self.device.0)?;
            header.set_device_minor(self.device.1)?;
        }
        header.set_cksum();
        Ok(header)
    }

    fn records(&self, attributes: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut records = Vec::new();
        let is_long = |text: &[u8]| text.len() > NAME_BYTES;
        if let Some(real_size) = self.real_size {
            record(&mut records, b"GNU.sparse.major", b"1");
            record(&mut records, b"GNU.sparse.minor", b"0");
            record(&mut records, b"GNU.sparse.name", self.path);
            record(&mut records, b"GNU.sparse.realsize", real_size.to_string().as_bytes());
        }
        if is_long(self.path) {
            record(&mut records, b"path", self.path);
        }
        if is_long(self.link) {
            record(&mut records, b"linkpath", self.link);
        }
        for (name, owner) in [(b"uid", self.uid), (b"gid", self.gid)] {
            if u64::from(owner) > OWNER_MOST {
                record(&mut records, name, owner.to_string().as_bytes());
            }
        }
        if self.size > SIZE_MOST {
            record(&mut records, b"size", self.size.to_string().as_bytes());
        }
        if u64::try_from(self.mtime).map_or(true, |mtime| mtime > SIZE_MOST) {
            record(&mut records, b"mtime", self.mtime.to_string().as_bytes());
        }
        for (name, value) in attributes {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        records
    }
}

/// How much is missing to whole blocks.
pub(super) fn padding(size: u64) -> usize {
    usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0)
}

/// As much as there is room for: the rest is in a record.
fn put(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// `LENGTH NAME=VALUE`, of which the length counts itself.
fn record(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(name);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}
