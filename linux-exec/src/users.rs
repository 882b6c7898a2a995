//! `--user` against the image's own `/etc/passwd` and `/etc/group`: pure, takes their text.
//!
//! The rules are Docker's: a number is always an id and need not be listed; a name must be; the groups that list the user
//! are added only where no group is named. Source: passwd(5), group(5), Docker's documentation of `--user`.

use std::collections::HashSet;

/// Ids above this one are refused, as Docker does: as an `int` they would be negative.
const MAX_ID: u32 = i32::MAX as u32;

/// The kernel's NGROUPS_MAX (linux/limits.h).
const MAX_GROUPS: usize = 65_536;

/// Who the program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id inside the container.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, as listed by the group file.
    pub groups: Vec<u32>,
    /// Home directory, `/` if unknown.
    pub home: String,
}

/// A user or group that cannot be resolved.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownUser {
    /// A name that is not in the passwd file.
    #[error(
        "the image has no user `{0}` in /etc/passwd: name one that it has, or give a numeric id, which need not be listed"
    )]
    User(String),
    /// A name that is not in the group file.
    #[error(
        "the image has no group `{0}` in /etc/group: name one that it has, or give a numeric id, which need not be listed"
    )]
    Group(String),
    /// A number outside of 0..=2147483647.
    #[error("id {0} is out of range: user and group ids go from 0 to {MAX_ID}")]
    OutOfRange(String),
    /// More memberships than a process can have.
    #[error(
        "/etc/group of the image lists user `{user}` in {count} groups, and a process can have {MAX_GROUPS}: name the one that is \
         needed, as in {user}:GROUP"
    )]
    TooManyGroups {
        /// Who.
        user: String,
        /// How many.
        count: usize,
    },
    /// More than one colon.
    #[error("user `{0}` has more than one colon: expected NAME|UID[:GROUP|GID]")]
    Malformed(String),
}

/// Resolves `name|uid[:group|gid]`.
///
/// An empty user is root, an empty group counts as none given. Lines that are malformed are passed over; of several
/// that match, the first one counts.
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User, UnknownUser> {
    let (user, primary) = spec.split_once(':').unwrap_or((spec, ""));
    if primary.contains(':') {
        return Err(UnknownUser::Malformed(spec.to_owned()));
    }
    let account = find_account(if user.is_empty() { "0" } else { user }, passwd)?;
    let (gid, groups) = match (primary, &account.name) {
        ("", Some(name)) => (account.gid, memberships(name, group)?),
        ("", None) => (account.gid, Vec::new()),
        (primary, _) => (find_group(primary, group)?, Vec::new()),
    };
    Ok(User { uid: account.uid, gid, groups, home: account.home })
}

/// The name of an id in a passwd file.
pub(crate) fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().filter_map(parse_account).find(|account| account.uid == uid)?.name
}

/// A line of the passwd file, or what stands in for it.
struct Account {
    /// None where the file does not list the id.
    name: Option<String>,
    uid: u32,
    gid: u32,
    home: String,
}

fn find_account(user: &str, passwd: &str) -> Result<Account, UnknownUser> {
    let uid = parse_typed_id(user)?;
    let wanted = |account: &Account| match uid {
        Some(uid) => account.uid == uid,
        None => account.name.as_deref() == Some(user),
    };
    match (passwd.lines().filter_map(parse_account).find(wanted), uid) {
        (Some(account), _) => Ok(account),
        (None, Some(uid)) => Ok(Account { name: None, uid, gid: 0, home: "/".to_owned() }),
        (None, None) => Err(UnknownUser::User(user.to_owned())),
    }
}

fn find_group(group: &str, file: &str) -> Result<u32, UnknownUser> {
    if let Some(gid) = parse_typed_id(group)? {
        return Ok(gid);
    }
    let mut entries = file.lines().filter_map(parse_group);
    let found = entries.find(|entry| entry.name == group);
    found.map(|entry| entry.gid).ok_or_else(|| UnknownUser::Group(group.to_owned()))
}

/// The groups that list `user` as a member, each once, in order.
fn memberships(user: &str, file: &str) -> Result<Vec<u32>, UnknownUser> {
    let (mut groups, mut seen) = (Vec::new(), HashSet::new());
    for entry in file.lines().filter_map(parse_group) {
        if entry.members.split(',').any(|member| member.trim() == user) && seen.insert(entry.gid) {
            groups.push(entry.gid);
        }
    }
    match groups.len() {
        ..=MAX_GROUPS => Ok(groups),
        count => Err(UnknownUser::TooManyGroups { user: user.to_owned(), count }),
    }
}

/// `name:password:uid:gid:comment:home:shell`; the last three may be missing.
fn parse_account(line: &str) -> Option<Account> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = parse_id(fields.nth(1)?)?;
    let gid = parse_id(fields.next()?)?;
    let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
    Some(Account { name: Some(name.to_owned()), uid, gid, home: home.to_owned() })
}

/// A line of the group file.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// `name:password:gid:member,member`; the members may be missing.
fn parse_group(line: &str) -> Option<Group<'_>> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = parse_id(fields.nth(1)?)?;
    Some(Group { name, gid, members: fields.next().unwrap_or("") })
}

/// An id within range; digits only, as `parse` would also take a sign.
fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id <= MAX_ID)
}

/// `Ok(None)` where it is a name; a number that is none of ours is an error rather than a name.
fn parse_typed_id(text: &str) -> Result<Option<u32>, UnknownUser> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    parse_id(text).map(Some).ok_or_else(|| UnknownUser::OutOfRange(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        \n\
        # comment\n\
        broken\n\
        bad:x:notanumber:5::/bad:\n\
        huge:x:4294967296:5::/huge:\n\
        web:x:33:34:Web:/var/www:/bin/false\n\
        twin:x:33:35::/twin:\n\
        short:x:50:51\n\
        homeless:x:52:53:::\n\
        1234:x:60:61::/digits:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:web,other\nwww:x:34:\nbad:x:q:web\nstaff:x:50:other, web\nagain:x:4:web\n\
        web:x:70\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> User {
        User { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn resolves_by_dockers_rules() {
        for (spec, expected) in [
            ("", user(0, 0, &[], "/root")),
            ("root", user(0, 0, &[], "/root")),
            ("0", user(0, 0, &[], "/root")),
            (":", user(0, 0, &[], "/root")),
            (":adm", user(0, 4, &[], "/root")),
            (":7", user(0, 7, &[], "/root")),
            ("web", user(33, 34, &[4, 50], "/var/www")),
            ("33", user(33, 34, &[4, 50], "/var/www")),
            ("web:", user(33, 34, &[4, 50], "/var/www")),
            ("web:staff", user(33, 50, &[], "/var/www")),
            ("web:999", user(33, 999, &[], "/var/www")),
            ("web:web", user(33, 70, &[], "/var/www")),
            ("1000", user(1000, 0, &[], "/")),
            ("1000:1001", user(1000, 1001, &[], "/")),
            ("1000:adm", user(1000, 4, &[], "/")),
            // All digits is an id even where a user is called that.
            ("1234", user(1234, 0, &[], "/")),
            ("short", user(50, 51, &[], "/")),
            ("homeless", user(52, 53, &[], "/")),
            ("2147483647:2147483647", user(MAX_ID, MAX_ID, &[], "/")),
        ] {
            assert_eq!(resolve(spec, PASSWD, GROUP), Ok(expected), "--user {spec}");
        }
    }

    #[test]
    fn refuses_what_is_not_there() {
        for (spec, expected) in [
            ("nobody", UnknownUser::User("nobody".into())),
            ("bad", UnknownUser::User("bad".into())),
            ("huge", UnknownUser::User("huge".into())),
            ("# comment", UnknownUser::User("# comment".into())),
            ("root:nogroup", UnknownUser::Group("nogroup".into())),
            ("root:bad", UnknownUser::Group("bad".into())),
            ("2147483648", UnknownUser::OutOfRange("2147483648".into())),
            ("-1", UnknownUser::OutOfRange("-1".into())),
            ("0:99999999999999999999", UnknownUser::OutOfRange("99999999999999999999".into())),
            ("a:b:c", UnknownUser::Malformed("a:b:c".into())),
        ] {
            assert_eq!(resolve(spec, PASSWD, GROUP), Err(expected), "--user {spec}");
        }
    }

    /// Quadratic, it took 7 to 19 seconds, before any limit of time began.
    #[test]
    fn a_user_of_400_000_groups_is_refused_at_once() {
        let file: String = (0..400_000).map(|gid| format!("g{gid}:x:{gid}:web\n")).collect();
        let error = resolve("web", PASSWD, &file).unwrap_err();
        assert_eq!(error, UnknownUser::TooManyGroups { user: "web".into(), count: 400_000 });
        let file: String = (0..400_000).map(|gid| format!("g:x:{}:web\n", gid % MAX_GROUPS)).collect();
        assert_eq!(resolve("web", PASSWD, &file).unwrap().groups.len(), MAX_GROUPS);
    }

    #[test]
    fn works_without_any_file() {
        assert_eq!(resolve("", "", ""), Ok(user(0, 0, &[], "/")));
        assert_eq!(resolve("5:6", "", ""), Ok(user(5, 6, &[], "/")));
        assert!(resolve("root", "", "").unwrap_err().to_string().contains("numeric id"));
    }
}
