//! What parses here, as functions of any bytes that assert what must hold of the outcome: for the tests below, and for
//! libFuzzer (`fuzz/`).

#![expect(clippy::unwrap_used, reason = "a panic is how a property fails")]

use crate::users;

/// Panics where something does not hold of what it makes of the bytes. Whether they were taken, and not refused: a run in which
/// all are refused tries little.
pub type Property = fn(&[u8]) -> bool;

/// Names, which are also those of folders in `corpus/`, and properties.
pub const TARGETS: [(&str, Property); 1] = [("users", users)];

/// What the user typed, /etc/passwd and /etc/group, with NULs between.
fn users(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut parts = text.splitn(3, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (typed, passwd, group) = (part(), part(), part());
    let user = match users::resolve(typed, passwd, group) {
        Err(error) => {
            let named = typed.split(':').chain([typed]).any(|it| !it.is_empty() && error.to_string().contains(it));
            assert!(named, "`{typed}` is not named: {error}");
            return false;
        }
        Ok(user) => user,
    };
    let highest = i32::MAX.unsigned_abs();
    assert!(user.uid <= highest && user.gid <= highest && user.groups.iter().all(|gid| *gid <= highest), "{user:?}");
    let distinct: std::collections::HashSet<_> = user.groups.iter().collect();
    assert!(distinct.len() == user.groups.len() && user.groups.len() <= 65_536, "{user:?}");
    assert!(!user.home.is_empty());
    // By its numbers it is the same one, without the groups that list it.
    let by_number = users::resolve(&format!("{}:{}", user.uid, user.gid), passwd, group).unwrap();
    assert_eq!((by_number.uid, by_number.gid, by_number.groups.len()), (user.uid, user.gid, 0));
    true
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::path::Path;
    use test_inputs::Target;

    #[test]
    fn users() {
        let words = &[":", "\n", "root", "web", "x", "0", "33", "2147483647", "2147483648", ",", "\0", "-1", "+1"];
        let (name, property) = TARGETS[0];
        Target { name, property, words, cases: 100_000 }.run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"));
    }
}
