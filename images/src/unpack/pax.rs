//! Records of a PAX extended header (pax(1)) and GNU tar's sparse maps. Pure functions over bytes.

/// What a PAX header says about the entry that follows it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    /// Names without `SCHILY.xattr.`.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// GNU.sparse.* records, of formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offset, length, offset, length, … (0.0 and 0.1).
    pub(super) numbers: Vec<u64>,
}

impl Pax {
    /// Adds the records of one header: `LENGTH KEY=VALUE\n`, the length counting all of it.
    ///
    /// # Errors
    /// What is wrong with which record.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() && bytes[0] != 0 {
            let (key, value, rest) = record(bytes).ok_or_else(|| damaged(bytes))?;
            self.set(key, value)
                .ok_or_else(|| format!("PAX record `{}` has the value `{}`", show(key), show(value)))?;
            bytes = rest;
        }
        Ok(())
    }

    /// An empty value takes a record of an earlier header back.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let text = || value.to_vec();
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(text),
            b"linkpath" => self.link = given.then(text),
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" if !given => self.mtime = None,
            b"mtime" => self.mtime = Some(timestamp(value)?),
            b"GNU.sparse.major" => self.sparse.major = number(value)?,
            b"GNU.sparse.name" => self.sparse.name = given.then(text),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = number(value)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.numbers.push(decimal(value)?),
            b"GNU.sparse.map" => self.sparse.numbers = number_list(value)?,
            _ => self.set_xattr(key, value),
        }
        Some(())
    }

    fn set_xattr(&mut self, key: &[u8], value: &[u8]) {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.push((name.to_vec(), value.to_vec()));
        }
    }
}

/// A number, or nothing; None: neither.
fn number(value: &[u8]) -> Option<Option<u64>> {
    if value.is_empty() { Some(None) } else { decimal(value).map(Some) }
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
    Some((&body[..equals], &body[equals + 1..], &bytes[length..]))
}

fn damaged(bytes: &[u8]) -> String {
    format!("its PAX header has a damaged record at `{}`; `LENGTH KEY=VALUE` and a newline are expected", show(bytes))
}

fn show(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(60)].escape_ascii().to_string()
}

/// Decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

fn number_list(value: &[u8]) -> Option<Vec<u64>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    value.split(|&byte| byte == b',').map(decimal).collect()
}

/// `[-]SECONDS[.FRACTION]`; the nanoseconds count forwards also before 1970.
fn timestamp(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, digits) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let mut parts = digits.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let nanoseconds = nanoseconds(parts.next().unwrap_or_default())?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

/// The first nine digits of a fraction.
fn nanoseconds(fraction: &[u8]) -> Option<u32> {
    let mut value = 0;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u32::from(digit - b'0');
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_by_their_length() {
        let mut pax = Pax::default();
        pax.parse(b"12 path=a/b\n22 SCHILY.xattr.u=x\ny\n19 mtime=1.5000000\n11 size=42\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.xattrs, [(b"u".to_vec(), b"x\ny".to_vec())]);
        assert_eq!(pax.mtime, Some((1, 500_000_000)));
        assert_eq!(pax.size, Some(42));
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let mut pax = Pax::default();
        pax.parse(b"12 path=a/b\n11 size=42\n8 uid=7\n11 mtime=5\n").unwrap();
        pax.parse(b"8 path=\n8 size=\n7 uid=\n9 mtime=\n").unwrap();
        assert_eq!((pax.path, pax.size, pax.uid, pax.mtime), (None, None, None, None));
    }

    #[test]
    fn damaged_records_are_refused() {
        for bytes in
            [&b"99 path=a\n"[..], b"x path=a\n", b"9 path=a", b"7 path\n", b"5 =a\n", b"0 a=b\n", b"11 size=-1\n", b" "]
        {
            assert!(Pax::default().parse(bytes).is_err(), "{}", show(bytes));
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1700000000.25", Some((1_700_000_000, 250_000_000))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-3", Some((-3, 0))),
            ("1.0000000009", Some((1, 0))),
            ("1.x", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(timestamp(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn sparse_maps_are_lists_of_numbers() {
        let mut pax = Pax::default();
        pax.parse(b"28 GNU.sparse.map=0,512,1024\n25 GNU.sparse.offset=777\n").unwrap_err();
        let mut pax = Pax::default();
        pax.parse(b"29 GNU.sparse.map=0,512,1024\n").unwrap();
        assert_eq!(pax.sparse.numbers, [0, 512, 1024]);
    }
}
