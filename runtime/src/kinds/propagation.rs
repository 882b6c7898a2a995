//! Whether a bind can have the propagation that it was asked to have: what is not shared on the host passes nothing on.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use linux_exec::plan;

use crate::spec::propagation::Propagation;

/// The same as the kernel is to do it.
///
/// # Errors
/// The mount that the source lies on does not pass on what would be seen.
pub(super) fn lower(source: &Path, wanted: Propagation) -> Result<plan::Propagation> {
    let (lowered, needs): (_, &[&str]) = match wanted {
        Propagation::Private => return Ok(plan::Propagation::Private),
        Propagation::Slave => (plan::Propagation::Slave, &["shared:", "master:"]),
        Propagation::Shared => (plan::Propagation::Shared, &["shared:"]),
    };
    let failed = || format!("cannot see how {} is mounted", source.display());
    let real = source.canonicalize().with_context(failed)?;
    let text = fs::read_to_string("/proc/self/mountinfo").with_context(failed)?;
    let (point, optional) = mount_of(&real, &text).with_context(failed)?;
    if !optional.iter().any(|field| needs.iter().any(|need| field.starts_with(need))) {
        bail!(
            "{} lies on the mount {point}, which is not shared, so {wanted} would be without effect (mount --make-rshared {point})",
            source.display()
        );
    }
    Ok(lowered)
}

/// Where the mount of a path is, and its optional fields (proc_pid_mountinfo(5)). Of several at one place the last one is seen.
fn mount_of<'a>(path: &Path, mountinfo: &'a str) -> Option<(String, Vec<&'a str>)> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let point = unescaped(fields.get(4)?);
        let end = fields.iter().position(|field| *field == "-")?;
        Some((point, fields.get(6..end)?.to_vec()))
    });
    let below = mounts.filter(|(point, _)| path.starts_with(point));
    below.max_by_key(|(point, _)| Path::new(point).components().count())
}

/// Blanks and the like are written as `\040`.
fn unescaped(text: &str) -> String {
    let mut plain = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_and_last_mount_of_a_path_is_its_own() {
        let text = "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n2 1 0:2 / /a\\040b rw - tmpfs t rw\n\
                    3 1 0:3 / /a\\040b rw master:7 shared:9 - tmpfs t rw\n4 1 0:4 / /ab rw - tmpfs t rw\n";
        let of = |path: &str| mount_of(Path::new(path), text).unwrap();
        assert_eq!(of("/a b/c"), ("/a b".to_owned(), vec!["master:7", "shared:9"]));
        assert_eq!(of("/abc"), ("/".to_owned(), vec!["shared:1"]));
        assert_eq!(of("/ab"), ("/ab".to_owned(), vec![]));
    }
}
