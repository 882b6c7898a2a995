//! Docker's command lines, and what a real Docker answered them: the same exit code, and the same on standard output but for
//! ids, times and sizes. `docker/answers.txt` has them, `docker/life.txt` those about namespaces, devices, logs and prunes, and
//! `docker/networks.txt` those about networks, a block each:
//!
//! ```text
//! $ ps -a --format '{{.Names}}'      the line
//! = 0                                the exit code
//! | e1                               standard output, made comparable; long JSON by its keys and the types of its values
//! ~ output KIND is a column here     differs on purpose, `output` or `code`; docs/docker.md has the reasons
//! ```
//!
//! With a daemon's socket in AMPHORA_TEST_DOCKER that has neither containers nor images, it is asked again whether that is
//! still what it answers; with AMPHORA_RECORD_ANSWERS its answers are written down.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use regex_lite::Regex;
use serde_json::Value;

use crate::{
    networks,
    sandbox::{Sandbox, fixture},
    session::{Ended, Session},
};

/// Longer JSON is compared by its shape.
const SHORT: usize = 150;

/// Keys of Docker's documents that tell of what is not here.
const NOT_HERE: [&str; 20] = [
    "Authorization",
    "BuildTime",
    "ConsoleSize",
    "Container",
    "ContainerConfig",
    "ContainerdCommit",
    "CpuCount",
    "CpuPercent",
    "HairpinMode",
    "IOMaximumBandwidth",
    "IOMaximumIOps",
    "InitCommit",
    "KernelMemory",
    "KernelMemoryTCP",
    "LinkLocalIPv6Address",
    "LinkLocalIPv6PrefixLen",
    "MaskedPaths",
    "NEventsListener",
    "NFd",
    "NGoroutines",
];
const NOT_HERE_EITHER: [&str; 9] = [
    "ReadonlyPaths",
    "RuncCommit",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "Runtimes",
    "NodeID",
    "NodeAddr",
    "ControlAvailable",
    "RemoteManagers",
];

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    line: String,
    code: i32,
    stdout: Vec<String>,
    differs: Vec<String>,
}

impl Answer {
    fn differs_in(&self, what: &str) -> bool {
        self.differs.iter().any(|reason| reason.starts_with(what))
    }
}

/// The files of lines, each with a store and, for networks, a machine of its own.
const FILES: [&str; 3] = ["answers.txt", "life.txt", "networks.txt"];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/docker").join(name)
}

fn parse(text: &str) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_at(line.len().min(1));
        let rest = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
        match (mark, answers.last_mut()) {
            ("$", _) => answers.push(Answer { line: rest, code: 0, stdout: Vec::new(), differs: Vec::new() }),
            ("=", Some(answer)) => answer.code = rest.parse().expect("an exit code"),
            ("|", Some(answer)) => answer.stdout.push(rest),
            ("~", Some(answer)) => answer.differs.push(rest),
            _ => panic!("a line of no block: {line}"),
        }
    }
    answers
}

fn written(answers: &[Answer]) -> String {
    let mut text = String::new();
    for Answer { line, code, stdout, differs } in answers {
        writeln!(text, "$ {line}\n= {code}").expect("memory");
        stdout.iter().for_each(|line| writeln!(text, "{}", format!("| {line}").trim_end()).expect("memory"));
        differs.iter().for_each(|reason| writeln!(text, "~ {reason}").expect("memory"));
    }
    text
}

/// Words as a shell splits them, with quotes of both kinds and no expansion.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (character, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What two runs have in common.
struct Comparable {
    patterns: Vec<(Regex, &'static str)>,
}

impl Comparable {
    fn new() -> Self {
        let patterns = [
            (r"sha256:[0-9a-f]{64}", "DIGEST"),
            (r"\b[0-9a-f]{64}\b", "ID64"),
            (r"\b[0-9a-f]{12}…", "ID12…"),
            (r"\b[0-9a-f]{12}\b", "ID12"),
            (r"0001-01-01T00:00:00Z", "NEVER"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC|[+-]\d\d:\d\d)", "TIME"),
            (r"(Less than a second|About an? (minute|hour)|\d+ (second|minute|hour)s?)( ago)?", "AGO"),
            (r"\b\d+(\.\d+)?[kMG]?B\b", "SIZE"),
            (r"  +", "  "),
        ];
        Self { patterns: patterns.map(|(pattern, name)| (Regex::new(pattern).expect("a pattern"), name)).to_vec() }
    }

    fn text(&self, text: &str, root: &str) -> String {
        let text = text.replace(root, "ROOT");
        self.patterns.iter().fold(text, |text, (pattern, name)| pattern.replace_all(&text, *name).into_owned())
    }

    fn lines(&self, stdout: &str, root: &str) -> Vec<String> {
        if let Some(shape) = long_json(stdout) {
            return vec![shape];
        }
        let comparable = |line| long_json(line).unwrap_or_else(|| self.text(line, root).trim_end().to_owned());
        stdout.lines().map(comparable).collect()
    }

    fn answer(&self, line: &str, ended: &Ended, root: &str) -> Answer {
        let code = ended.code.expect("an exit code");
        let mut stdout = self.lines(&ended.stdout, root);
        // What was made in the same second has no order.
        if ["images", "image ls", "volume ls", "rmi", "system df -v"].iter().any(|command| line.starts_with(command)) {
            stdout.sort();
        }
        Answer { line: line.to_owned(), code, stdout, differs: Vec::new() }
    }
}

fn long_json(text: &str) -> Option<String> {
    let is_one = text.len() > SHORT && text.starts_with(['{', '[']);
    is_one.then(|| serde_json::from_str(text).ok()).flatten().map(|value| format!("{SHAPE}{}", shape(&value)))
}

/// Before a shape.
const SHAPE: &str = "shape ";

/// The shape that this is, or that JSON has.
fn as_shape(text: &str) -> Option<Value> {
    match text.strip_prefix(SHAPE) {
        Some(shape) => serde_json::from_str(shape).ok(),
        None => serde_json::from_str(text).ok().map(|value| shape(&value)),
    }
}

/// Keys, and the types of values: of a list those of the first.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => false.into(),
        Value::Number(_) => 0.into(),
        Value::String(_) => "".into(),
        Value::Array(items) => items.iter().take(1).map(shape).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            let is_named = |name: &str| name.len() != 64;
            let fields = fields.iter().filter(|(name, _)| is_named(name));
            Value::Object(fields.map(|(name, value)| (name.clone(), shape(value))).collect())
        }
    }
}

/// What of Docker's is not in ours, or of another type. Ours may have more.
fn missing(docker: &Value, ours: &Value, place: &str, found: &mut Vec<String>) {
    match (docker, ours) {
        (Value::Object(docker), Value::Object(ours)) => {
            for (name, value) in docker {
                match ours.get(name) {
                    _ if NOT_HERE.contains(&name.as_str()) || NOT_HERE_EITHER.contains(&name.as_str()) => {}
                    Some(own) => missing(value, own, &format!("{place}.{name}"), found),
                    None => found.push(format!("{place}.{name}")),
                }
            }
        }
        (Value::Array(docker), Value::Array(ours)) => {
            if let (Some(docker), Some(ours)) = (docker.first(), ours.first()) {
                missing(docker, ours, &format!("{place}[]"), found);
            }
        }
        (Value::Null, _) | (_, Value::Null) => {}
        (docker, ours) if std::mem::discriminant(docker) == std::mem::discriminant(ours) => {}
        (docker, ours) => found.push(format!("{place} is {ours}, with Docker {docker}")),
    }
}

fn compare(docker: &Answer, ours: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if docker.code != ours.code && !docker.differs_in("code") {
        found.push(format!("exit code {}, with Docker {}", ours.code, docker.code));
    }
    if docker.differs_in("output") {
        return found;
    }
    if docker.stdout.len() != ours.stdout.len() {
        found.push(format!("{:?}\n  with Docker {:?}", ours.stdout, docker.stdout));
        return found;
    }
    for (theirs, own) in docker.stdout.iter().zip(&ours.stdout) {
        let is_shape = [theirs, own].iter().any(|text| text.starts_with(SHAPE));
        match (as_shape(theirs), as_shape(own)) {
            (Some(theirs), Some(own)) if is_shape => missing(&theirs, &own, "", &mut found),
            _ if theirs.trim_end() == own.trim_end() => {}
            _ => found.push(format!("`{own}`\n  with Docker `{theirs}`")),
        }
    }
    found
}

/// The image's root file system as an archive, where the command lines expect it.
fn prepare(sandbox: &Sandbox) -> Option<()> {
    let busybox = fixture("busybox")?;
    let archive = sandbox.work().join("rootfs.tar");
    let made = Command::new("tar").arg("-C").arg(busybox).arg("-cf").arg(archive).arg(".").status();
    assert!(made.expect("tar").success());
    Some(())
}

#[test]
fn dockers_command_lines_give_what_docker_gives() {
    let Some(sandbox) = Sandbox::new() else { return };
    if !sandbox.is_root() {
        return println!("skipped: the answers are those of a daemon that is root");
    }
    let Some(()) = prepare(&sandbox) else { return };
    compare_all(&sandbox, "answers.txt");
}

#[test]
fn dockers_command_lines_on_a_containers_life_give_what_docker_gives() {
    let Some(sandbox) = Sandbox::new() else { return };
    if !sandbox.can_limit(&["--memory-swappiness", "50", "--cpu-period", "50000", "--device", "/dev/null:/dev/nullx:r"])
    {
        return println!("skipped: the answers are those of a machine that has these limits");
    }
    let Some(()) = prepare(&sandbox) else { return };
    compare_all(&sandbox, "life.txt");
}

#[test]
fn dockers_command_lines_on_networks_give_what_docker_gives() {
    networks::alone(|sandbox, _| prepare(sandbox).map_or((), |()| compare_all(sandbox, "networks.txt")));
}

fn compare_all(sandbox: &Sandbox, name: &str) {
    let comparable = Comparable::new();
    let root = sandbox.root().to_str().expect("UTF-8").to_owned();
    let mut wrong = String::new();
    for answer in parse(&std::fs::read_to_string(file(name)).expect("the answers")) {
        let ended = sandbox.run(words(&answer.line));
        assert!(!ended.stderr.contains("panicked"), "{}: {ended}", answer.line);
        assert!(ended.code == Some(0) || !ended.stderr.is_empty() || answer.code != 0, "{}: {ended}", answer.line);
        for problem in compare(&answer, &comparable.answer(&answer.line, &ended, &root)) {
            writeln!(wrong, "$ {}\n  {problem}\n  {}", answer.line, ended.stderr.trim()).expect("memory");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_answers_are_those_of_a_real_docker() {
    let Ok(socket) = std::env::var("AMPHORA_TEST_DOCKER") else {
        return println!("skipped: no socket of a Docker daemon in AMPHORA_TEST_DOCKER");
    };
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(()) = prepare(&sandbox) else { return };
    let docker = |words: &[String]| {
        let mut command = Command::new("docker");
        command.arg("-H").arg(&socket).args(words).current_dir(sandbox.work()).stdin(Stdio::null());
        Session::start(command).wait()
    };
    let there = [&["ps", "-aq"][..], &["images", "-aq"], &["volume", "ls", "-q"]];
    for question in there {
        let question: Vec<String> = question.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(docker(&question).stdout, "", "the daemon is not empty: {question:?}");
    }
    let root = docker(&words("info -f {{.DockerRootDir}}")).stdout.trim().to_owned();
    for name in FILES {
        ask_again(name, &docker, &root);
    }
}

fn ask_again(name: &str, docker: &dyn Fn(&[String]) -> Ended, root: &str) {
    let comparable = Comparable::new();
    let recorded = parse(&std::fs::read_to_string(file(name)).expect("the answers"));
    let asked: Vec<Answer> = recorded
        .iter()
        .map(|answer| {
            let differs = answer.differs.clone();
            Answer { differs, ..comparable.answer(&answer.line, &docker(&words(&answer.line)), root) }
        })
        .collect();
    if std::env::var_os("AMPHORA_RECORD_ANSWERS").is_some() {
        std::fs::write(file(name), written(&asked)).expect("the answers");
        return;
    }
    for (recorded, asked) in recorded.iter().zip(&asked) {
        assert_eq!(compare(recorded, &Answer { differs: Vec::new(), ..asked.clone() }), [""; 0], "{}", recorded.line);
    }
}

#[test]
fn blocks_are_read_as_they_are_written() {
    let text = "$ ps -f 'name=^a b$' \"\"\n= 1\n| a  b\n|\n~ output why\n$ rm\n= 0\n";
    let answers = parse(text);
    assert_eq!(written(&answers), text);
    assert_eq!(words(&answers[0].line), ["ps", "-f", "name=^a b$", ""]);
    assert!(answers[0].differs_in("output") && !answers[0].differs_in("code"));
}

#[test]
fn documents_are_compared_by_their_keys() {
    let docker = serde_json::json!({"a": "x", "b": [{"c": 1}], "d": {"e": true}, "f": null, "KernelMemory": 1});
    let ours = serde_json::json!({"a": "", "b": [{"z": 1}], "d": {"e": ""}, "g": 1});
    let mut found = Vec::new();
    missing(&docker, &ours, "", &mut found);
    assert_eq!(found, [".b[].c", ".d.e is \"\", with Docker true", ".f"]);
}
