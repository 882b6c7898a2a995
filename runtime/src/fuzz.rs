//! What parses here, each parser as a function of any bytes that asserts what must hold of the outcome: for the tests
//! below, and for libFuzzer (`fuzz/`).

#![expect(clippy::unwrap_used, reason = "a panic is how a property fails")]

use crate::{
    output::{Row, TestedTemplate as Template},
    records::container::fuzz::record,
    spec::{
        env, limits,
        mounts::{self, MountKind, MountSpec},
        quantity,
        request::StopTimeout,
    },
};
use serde_json::{Value, json};
use std::{fmt::Display, path::Path};

/// Panics where something does not hold of what it makes of the bytes. Whether they were taken, and not refused: a run in which
/// all are refused tries little.
pub type Property = fn(&[u8]) -> bool;

/// Names, which are also those of folders in `corpus/`, and properties.
pub const TARGETS: [(&str, Property); 5] =
    [("env-file", env_file), ("limits", limits), ("mounts", mounts), ("record", record), ("template", template)];

fn env_file(bytes: &[u8]) -> bool {
    let parse = |bytes: &[u8]| env::parse_file(Path::new("vars"), bytes, &|_| None);
    let variables = match parse(bytes) {
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("--env-file vars, line ") && !text.contains('\n'), "{text:?}");
            return false;
        }
        Ok(variables) => variables,
    };
    assert!(variables.iter().all(|entry| !entry.is_empty() && !entry.contains(['\0', '\n'])), "{variables:?}");
    let printed: String = variables.iter().map(|entry| format!("{entry}\r\n")).collect();
    assert_eq!(parse(format!("\u{feff}{printed}").as_bytes()).unwrap(), variables);
    let merged = env::merge(&[&variables]);
    let names: std::collections::HashSet<_> = merged.iter().map(|entry| entry.split_once('=').unwrap().0).collect();
    assert_eq!(names.len(), merged.len(), "{merged:?}");
    assert_eq!(env::merge(&[&merged, &merged]), merged);
    true
}

fn limits(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    check_size(text);
    let printed = |millis: u64| format!("{}s{}ms", millis / 1000, millis % 1000);
    if let Some(millis) = named(text, limits::parse_timeout(text)).flatten() {
        assert_eq!(limits::parse_timeout(&printed(millis)), Ok(Some(millis)), "{text}");
    }
    if let Some(StopTimeout::After(millis)) = named(text, limits::parse_stop_timeout("--time", text)) {
        assert_eq!(quantity::parse_duration_ms(&printed(millis)), Ok(millis), "{text}");
    }
    if let Some(Some(millis)) = named(text, limits::parse_cpus(text, 8)) {
        let printed = format!("{}.{:03}", millis / 1000, millis % 1000);
        assert_eq!(limits::parse_cpus(&printed, 8), Ok(Some(millis)), "{text}");
    }
    let whole = [limits::parse_pids, limits::parse_cpu_shares, limits::parse_memory];
    for parse in whole {
        if let Some(Some(number)) = named(text, parse(text)) {
            assert_eq!(parse(&number.to_string()), Ok(Some(number)), "{text}");
        }
    }
    if let Some(swap) = named(text, limits::parse_memory_swap(text)).flatten() {
        assert_eq!(limits::parse_memory_swap(&swap.to_string()), Ok(Some(swap)), "{text}");
    }
    if let Some(fuel) = named(text, limits::parse_fuel(text)) {
        assert_eq!(limits::parse_fuel(&fuel.to_string()), Ok(fuel), "{text}");
    }
    if let Some(ulimit) = named(text, limits::parse_ulimit(text)) {
        let printed = format!("{}={}:{}", ulimit.name, ulimit.soft, ulimit.hard);
        assert!(ulimit.soft <= ulimit.hard);
        assert_eq!(limits::parse_ulimit(&printed), Ok(ulimit));
    }
    let online = limits::CpuList::parse("0-7,64").unwrap();
    if let Some(list) = named(text, limits::parse_cpuset_cpus(text, &online)) {
        assert_eq!(limits::parse_cpuset_cpus(&list, &online), Ok(list));
    }
    limits::parse_memory(text).is_ok()
}

/// A size against the same computed in floating point.
fn check_size(text: &str) {
    let Ok(bytes) = quantity::parse_bytes(text) else { return };
    assert_eq!(quantity::parse_bytes(&bytes.to_string()), Ok(bytes), "{text}");
    let number = text.trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.');
    let unit = text[number.len()..].trim_start().bytes().next().map_or(b'b', |letter| letter.to_ascii_lowercase());
    let power = b"bkmgtp".iter().position(|&letter| letter == unit).unwrap();
    let expected = number.parse::<f64>().unwrap() * 1024_f64.powi(i32::try_from(power).unwrap());
    #[expect(clippy::cast_precision_loss, reason = "it is compared roughly")]
    let difference = (bytes as f64 - expected).abs();
    // A digit beyond the sixth after the point is cut off, and so is a fraction of a byte.
    let tolerance = 1.0 + 1e-6 * 1024_f64.powi(i32::try_from(power).unwrap()) + expected * 1e-9;
    assert!(difference <= tolerance, "{text} is {bytes}, expected {expected}");
}

/// What was found; an error names the text.
fn named<T, E: Display>(text: &str, parsed: Result<T, E>) -> Option<T> {
    parsed.inspect_err(|error| assert!(error.to_string().contains(text), "{text:?} is not named: {error}")).ok()
}

fn mounts(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut taken = false;
    let cwd = Path::new("/home/me");
    let all = [mounts::parse_volume(text, cwd), mounts::parse_mount(text, cwd), mounts::parse_tmpfs(text)];
    for spec in all.into_iter().filter_map(|parsed| named(text, parsed)) {
        taken = true;
        let target = spec.target.to_str().unwrap();
        let parts: Vec<&str> = target.split('/').skip(1).collect();
        let is_clean = parts.iter().all(|part| !matches!(*part, "" | "." | ".."));
        assert!(target == "/" || target.starts_with('/') && is_clean, "{target}");
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<MountSpec>(&json).unwrap(), spec);
        if let Some(printed) = printed(&spec) {
            assert_eq!(mounts::parse_mount(&printed, Path::new("/elsewhere")).as_ref(), Ok(&spec), "{printed}");
        }
    }
    taken
}

/// As `--mount` has it; a tmpfs that executes cannot be written so.
fn printed(spec: &MountSpec) -> Option<String> {
    let mut fields = vec![format!("target={}", spec.target.display()), format!("readonly={}", spec.readonly)];
    match &spec.kind {
        MountKind::Bind { source, recursive, .. } => {
            fields.extend(["type=bind".to_owned(), format!("source={}", source.display())]);
            fields.push(format!("bind-nonrecursive={}", !recursive));
        }
        MountKind::Image { .. } | MountKind::Volume { subpath: Some(_), .. } => return None,
        MountKind::Volume { name, copy, subpath: None } => {
            fields.push(format!("volume-nocopy={}", !copy));
            fields.extend(name.as_ref().map(|name| format!("source={name}")));
        }
        MountKind::Tmpfs { exec: true, .. } | MountKind::Tmpfs { owner: Some(_), .. } => return None,
        MountKind::Tmpfs { size_bytes, mode, exec: false, owner: None } => {
            fields.extend(["type=tmpfs".to_owned(), format!("tmpfs-mode={mode:o}")]);
            fields.extend(size_bytes.map(|size| format!("tmpfs-size={size}")));
        }
    }
    let quoted: Vec<String> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
    Some(quoted.join(","))
}

fn template(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let one_line = |message: String| assert!(!message.contains('\n') && !message.is_empty(), "{message:?}");
    let template = match Template::parse(text) {
        Err(error) => {
            one_line(error.to_string());
            return false;
        }
        Ok(template) => template,
    };
    for value in [sample(), Value::Null, json!(["x", 1, "a\nb"])].map(Row::from) {
        for rendered in [template.render(&value), template.render_header(&value)] {
            match rendered {
                Err(error) => one_line(error.to_string()),
                Ok(shown) => assert!(shown.len() <= 64 << 20, "{} bytes of {text}", shown.len()),
            }
        }
    }
    true
}

fn sample() -> Value {
    json!({
        "ID": "abc", "Size": 12, "Empty": "", "Running": true, "Nothing": null, "Lines": "a\nb\u{1b}[2J",
        "State": {"ExitCode": 3, "Status": "exited"}, "Names": ["web", "db"], "Labels": {"a.b/c": "x"},
        "Mounts": [{"Source": "/a", "RW": true}, {"Source": "/b", "RW": false}],
    })
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::path::Path;
    use test_inputs::Target;

    fn run(name: &'static str, cases: u64, words: &'static [&'static str]) {
        let property = TARGETS.iter().find(|(known, _)| *known == name).unwrap().1;
        Target { name, property, words, cases }.run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"));
    }

    #[test]
    fn env_files() {
        run("env-file", 100_000, &["A=", "B", "#", "\n", "\r\n", "=", " ", "\u{a0}", "\u{feff}"]);
    }

    #[test]
    fn limits() {
        let words = &[
            "k",
            "kb",
            "KiB",
            "m",
            "g",
            "t",
            "p",
            "pb",
            "ms",
            "us",
            "µs",
            "ns",
            "h",
            "1m30s",
            "unlimited",
            "nofile=",
            "core=",
            ":",
            "-1",
            ",",
            "-",
            ".",
            "64",
            "65535",
            "302231454903657293p",
        ];
        run("limits", 200_000, words);
    }

    #[test]
    fn mounts() {
        let words = &[
            "type=",
            "bind",
            "volume",
            "tmpfs",
            "source=",
            "target=",
            "dst=",
            "readonly",
            "ro",
            "rw",
            "size=",
            "mode=",
            "tmpfs-size=",
            "tmpfs-mode=",
            "volume-nocopy",
            "bind-recursive=disabled",
            ":",
            ",",
            "\"",
            "/",
            "..",
            "./",
        ];
        run("mounts", 200_000, words);
    }

    #[test]
    fn records() {
        let words = &[
            "\"format\":",
            "\"pid\":",
            "\"exit_code\":",
            "\"limit_hit\":",
            "\"workload\":",
            "\"mounts\":[]",
            "null",
            "{",
            "}",
            "[",
            "]",
            "\"",
            ",",
            "999",
            "\"unlimited\"",
            "\"kind\":",
        ];
        run("record", 60_000, words);
    }

    #[test]
    fn templates() {
        let words = &[
            "{{",
            "}}",
            "{{- ",
            " -}}",
            "{{if .ID}}",
            "{{else}}",
            "{{else if .ID}}",
            "{{end}}",
            "{{range .Names}}",
            "{{with .State}}",
            "{{json .}}",
            ".Lines",
            ".Mounts",
            "|",
            "(",
            ")",
            "index",
            "join",
            "println",
            "len",
            "eq",
            "not",
            "\"x\"",
            "`",
            "{{/*",
            "*/}}",
            "{{(",
            "{{$x := .ID}}",
            "$x",
            "{{range $k, $v := .Labels}}",
            "{{break}}",
            "printf \"%5.2f\"",
            "{{define \"a\"}}",
            "{{template \"a\" .}}",
            "1.5",
            "-",
        ];
        run("template", 60_000, words);
    }
}
