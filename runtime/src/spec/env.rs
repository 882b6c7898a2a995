//! The environment of a container's program, as `NAME=value` entries.
//!
//! An entry that is only a `NAME` takes that variable away again: it is what `-e NAME` becomes where the caller has none.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// A variable that cannot be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    /// `-e =x`, or `-e` with nothing.
    #[error(
        "invalid value `{found}` for --env: the variable has no name; expected NAME=VALUE, or NAME to pass on the caller's"
    )]
    NoName { found: String },
    /// The file cannot be read.
    #[error("cannot read the --env-file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// A line of the file does not parse.
    #[error("--env-file {}, line {line}: {problem}", path.display())]
    BadLine { path: PathBuf, line: usize, problem: String },
}

/// Merges lists of entries: each name once, where it was first set, with the value that was set last.
pub(crate) fn merge(lists: &[&[String]]) -> Vec<String> {
    // An image may list a million of them.
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut merged: Vec<Option<&str>> = Vec::new();
    for entry in lists.iter().copied().flatten() {
        let name = name_of(entry);
        if entry.contains('=') && !name.is_empty() {
            let place = *places.entry(name).or_insert(merged.len());
            merged.resize(merged.len().max(place + 1), None);
            merged[place] = Some(entry);
        } else if let Some(place) = places.remove(name) {
            merged[place] = None;
        }
    }
    merged.into_iter().flatten().map(str::to_owned).collect()
}

/// Reads the `--env-file`s, then takes each `-e`: for [`merge`], in which what comes later holds.
///
/// A variable of the caller that is passed on and is not UTF-8 has what is unreadable replaced, as the environment is
/// kept as text.
///
/// # Errors
/// A file that cannot be read or does not parse; a variable without a name.
pub(crate) fn from_flags(files: &[PathBuf], entries: &[String]) -> Result<Vec<String>, EnvError> {
    let caller = |name: &OsStr| std::env::var_os(name);
    let mut variables = Vec::with_capacity(entries.len());
    for path in files {
        let bytes = std::fs::read(path).map_err(|source| EnvError::Unreadable { path: path.clone(), source })?;
        variables.extend(parse_file(path, &bytes, &caller)?);
    }
    for entry in entries {
        if name_of(entry).is_empty() {
            return Err(EnvError::NoName { found: entry.clone() });
        }
        variables.push(pass_on(entry, &caller));
    }
    Ok(variables)
}

/// Looks up a variable of the caller.
pub(crate) type Caller<'a> = &'a dyn Fn(&OsStr) -> Option<OsString>;

/// Docker's rules: a line is `NAME=value`, taken as it stands, without quotes or expansion; `NAME` alone passes on the
/// caller's; lines that begin with `#`, and empty ones, do not count; white space before a line is removed.
pub(crate) fn parse_file(path: &Path, bytes: &[u8], caller: Caller<'_>) -> Result<Vec<String>, EnvError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut variables = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let bad = |problem: String| EnvError::BadLine { path: path.to_owned(), line: index + 1, problem };
        let line = str::from_utf8(line).map_err(|_| bad("not UTF-8".to_owned()))?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.contains('\0') {
            return Err(bad("a NUL character, which no variable can have".to_owned()));
        }
        match name_of(line) {
            _ if line.is_empty() || line.starts_with('#') => {}
            "" => return Err(bad("the variable has no name; expected NAME=VALUE".to_owned())),
            name if name.contains([' ', '\t']) => {
                return Err(bad(format!("the variable `{name}` has white space in its name")));
            }
            _ => variables.push(pass_on(line, caller)),
        }
    }
    Ok(variables)
}

fn pass_on(entry: &str, caller: Caller<'_>) -> String {
    match caller(OsStr::new(entry)) {
        Some(value) if !entry.contains('=') => format!("{entry}={}", value.to_string_lossy()),
        _ => entry.to_owned(),
    }
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &OsStr) -> Option<OsString> {
        (name == "FROM_CALLER").then(|| "yes".into())
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn from_file(content: &[u8]) -> Result<Vec<String>, String> {
        parse_file(Path::new("vars"), content, &caller).map_err(|error| error.to_string())
    }

    #[test]
    fn the_last_value_holds_at_the_first_place() {
        let image = strings(&["PATH=/bin", "A=1", "B=2", "=x", "A=3", "ODD"]);
        let user = strings(&["B=x=y", "C=", "A", "MISSING"]);
        assert_eq!(merge(&[&image, &user]), ["PATH=/bin", "B=x=y", "C="]);
        assert_eq!(merge(&[]), [""; 0]);
        let again = strings(&["A=1", "B=2", "A", "A=3"]);
        assert_eq!(merge(&[&again]), ["B=2", "A=3"]);
    }

    /// Each is looked for among those before it: ten milliseconds, or an hour.
    #[test]
    fn a_million_variables_of_an_image_are_merged() {
        let image: Vec<String> = (0..1_000_000).map(|number| format!("A{number}=")).collect();
        assert_eq!(merge(&[&image, &strings(&["A7"])]).len(), 999_999);
    }

    #[test]
    fn flags_come_after_files() {
        let path = std::env::temp_dir().join(format!("amphora-env-{}", std::process::id()));
        std::fs::write(&path, "A=file\nB=file\n").unwrap();
        let entries = from_flags(std::slice::from_ref(&path), &strings(&["A=flag", "NO_SUCH_VARIABLE", "PATH"]));
        std::fs::remove_file(&path).unwrap();
        let path_variable = format!("PATH={}", std::env::var("PATH").unwrap());
        assert_eq!(entries.unwrap(), ["A=file", "B=file", "A=flag", "NO_SUCH_VARIABLE", path_variable.as_str()]);
    }

    #[test]
    fn bad_flags_are_named() {
        for entry in ["", "=x"] {
            let message = from_flags(&[], &strings(&[entry])).unwrap_err().to_string();
            assert!(message.starts_with(&format!("invalid value `{entry}` for --env: ")), "{message}");
        }
        let message = from_flags(&["/no/such/file".into()], &[]).unwrap_err().to_string();
        assert!(message.starts_with("cannot read the --env-file /no/such/file: No such file"), "{message}");
    }

    #[test]
    fn files_follow_dockers_rules() {
        let content = "\u{feff}# comment\n\n  A=1\nB=\"quoted\" # kept\r\nFROM_CALLER\nMISSING\n\t#x\nC= spaced ";
        let expected = ["A=1", "B=\"quoted\" # kept", "FROM_CALLER=yes", "MISSING", "C= spaced "];
        assert_eq!(from_file(content.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn bad_lines_are_named() {
        let no_name = "--env-file vars, line 2: the variable has no name; expected NAME=VALUE";
        assert_eq!(from_file(b"A=1\n=x").unwrap_err(), no_name);
        let white_space = "--env-file vars, line 1: the variable `a b` has white space in its name";
        assert_eq!(from_file(b"a b=1").unwrap_err(), white_space);
        assert_eq!(from_file(b"A=\xff").unwrap_err(), "--env-file vars, line 1: not UTF-8");
        let nul = "--env-file vars, line 1: a NUL character, which no variable can have";
        assert_eq!(from_file(b"A=x\0y").unwrap_err(), nul);
    }
}
