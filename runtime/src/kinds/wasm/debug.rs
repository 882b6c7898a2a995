//! What can be seen of a Wasm program from outside: `amphora debug`.

use std::{collections::BTreeMap, fmt::Write, fs, num::NonZeroU32};

use anyhow::Result;
use images::program::{self, Form, Role};
use serde_json::{Value, json};

use super::grants;
use crate::{
    output,
    records::container::Container,
    spec::{
        RunSpec,
        mounts::{MountKind, MountSpec},
    },
};

/// All of it. `code_bytes`: how large its compiled code is, if that is there; `pid`: of its process, if it runs.
pub(super) fn describe(
    container: &Container,
    bytes: &[u8],
    code_bytes: Option<u64>,
    pid: Option<i32>,
) -> Result<String> {
    let spec = &container.spec;
    let mut text = summary(spec, bytes, code_bytes, pid)?;
    section(&mut text, "Imports", &imports(spec, bytes)?);
    section(&mut text, "Grants", &granted(spec));
    let engine = container.engine().unwrap_or_default();
    if !spec.ports.is_empty() {
        let counted = vec![
            row("requests", format!("{}, {} failed, {} trapped", engine.requests, engine.failed, engine.traps)),
            row(
                "memory",
                format!(
                    "{} now, {} at most",
                    output::binary_size(engine.memory_bytes),
                    output::binary_size(engine.peak_memory_bytes)
                ),
            ),
        ];
        section(&mut text, "Served", &counted);
    }
    text.push_str("Last trap:\n");
    match &engine.last_trap {
        Some(trap) => trap.lines().for_each(|line| indented(&mut text, line)),
        None => indented(&mut text, "none"),
    }
    engine.core_dumps.iter().for_each(|path| indented(&mut text, &format!("core dump: {path}")));
    if let Some(pid) = pid {
        text.push_str("Memory map:\n");
        memory_map(pid).lines().for_each(|line| indented(&mut text, line));
    }
    Ok(text.trim_end().to_owned())
}

/// For `inspect`: what the engine told of the last run, and what it was given. `code_bytes` as above.
pub(super) fn details(container: &Container, code_bytes: Option<u64>) -> Value {
    let (spec, engine) = (&container.spec, container.engine().unwrap_or_default());
    let preopens = spec.mounts.iter().map(|mount| mount.target.display().to_string());
    json!({
        "CodeBytes": code_bytes,
        "Preopens": preopens.collect::<Vec<_>>(),
        "Sockets": spec.ports.iter().map(|port| format!("{}/{}", port.container_port, port.protocol)).collect::<Vec<_>>(),
        "Reuse": spec.wasm.reuse.map_or(1, NonZeroU32::get),
        "Requests": engine.requests,
        "Failed": engine.failed,
        "Traps": engine.traps,
        "MemoryBytes": engine.memory_bytes,
        "PeakMemoryBytes": engine.peak_memory_bytes,
        "FuelUsed": engine.fuel_used,
        "LastTrap": engine.last_trap,
        "CoreDumps": engine.core_dumps,
    })
}

fn summary(spec: &RunSpec, bytes: &[u8], code_bytes: Option<u64>, pid: Option<i32>) -> Result<String> {
    let found = program::inspect(bytes)?;
    let form = match found.form {
        Form::Module => "module",
        Form::Component => "component",
    };
    let role = match found.role {
        Role::Command => "command",
        Role::Function => "function that answers HTTP requests",
        Role::Library => "library",
    };
    let state = pid.map_or("does not run".to_owned(), |pid| format!("runs as process {pid}"));
    let code = code_bytes.map(|bytes| format!(", {} compiled", output::size(bytes))).unwrap_or_default();
    let size = output::size(bytes.len() as u64);
    Ok(format!("Container {} {state}\nProgram: {form}, {role}, {size}{code}\n", spec.name))
}

/// Each import, and what provides it.
fn imports(spec: &RunSpec, bytes: &[u8]) -> Result<Vec<Vec<String>>> {
    let missing = wasm_exec::unprovided_imports(bytes)?;
    let given = |import: &str| match import.split('/').next() {
        Some("wasi:config") => !spec.wasm.config.is_empty(),
        Some("wasi:keyvalue") => !spec.wasm.stores.is_empty(),
        _ => false,
    };
    let provided = |import: &String| match grants::flag_of(import) {
        _ if missing.iter().any(|name| name.starts_with(import)) && !given(import) => "not provided".to_owned(),
        Some(flag) => format!("provided; {flag} grants more"),
        None => "provided".to_owned(),
    };
    let found = program::inspect(bytes)?;
    Ok(found.imports.iter().map(|import| row(import, provided(import))).collect())
}

/// What its flags gave it.
fn granted(spec: &RunSpec) -> Vec<Vec<String>> {
    let names: Vec<&str> = spec.env.iter().filter_map(|variable| variable.split('=').next()).collect();
    let ports: Vec<String> =
        spec.ports.iter().map(|port| format!("{}/{}", port.container_port, port.protocol)).collect();
    let limits = &spec.limits;
    let given = [
        ("variables", Some(names.join(" ")).filter(|names| !names.is_empty())),
        ("network", Some(spec.network.mode())),
        ("connects to", Some(spec.wasm.allow_net.join(" ")).filter(|destinations| !destinations.is_empty())),
        ("answers at", Some(ports.join(" ")).filter(|ports| !ports.is_empty())),
        ("requests of one instance", spec.wasm.reuse.map(|reuse| reuse.to_string())),
        ("configuration", Some(keys(spec.wasm.config.keys())).filter(|names| !names.is_empty())),
        ("stores", Some(keys(spec.wasm.stores.iter().map(|store| &store.name))).filter(|names| !names.is_empty())),
        ("proposals", Some(spec.wasm.proposals.join(" ")).filter(|names| !names.is_empty())),
        ("memory", limits.memory_bytes.map(|bytes| format!("at most {}", output::binary_size(bytes)))),
        ("fuel", limits.fuel.map(|fuel| format!("at most {fuel}"))),
        ("time", limits.timeout_ms.map(|millis| format!("at most {millis} ms"))),
    ];
    let rest = given.into_iter().filter_map(|(name, what)| what.map(|what| row(name, what)));
    spec.mounts.iter().map(|mount| row("directory", directory(mount))).chain(rest).collect()
}

fn keys<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn directory(mount: &MountSpec) -> String {
    let source = match &mount.kind {
        MountKind::Bind { source, .. } => source.display().to_string(),
        MountKind::Volume { name, .. } => format!("volume {}", name.as_deref().unwrap_or_default()),
        MountKind::Tmpfs { .. } => "memory".to_owned(),
        MountKind::Image { name, .. } => format!("image {name}"),
    };
    let how = if mount.readonly { "read-only" } else { "writable" };
    format!("{}, {how}, of {source}", mount.target.display())
}

/// Its process's memory by what it is: in how many places, how large, how much of it is there. A function's server reserves places by
/// the thousand.
fn memory_map(pid: i32) -> String {
    let smaps = match fs::read_to_string(format!("/proc/{pid}/smaps")) {
        Ok(smaps) => smaps,
        Err(error) => return format!("cannot be seen by this user: {error}"),
    };
    let mut sums: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for mapping in mappings(&smaps) {
        let sum = sums.entry(mapping.what().to_owned()).or_default();
        *sum = (sum.0 + 1, sum.1 + mapping.bytes, sum.2 + mapping.resident_bytes);
    }
    let header = ["PLACES", "SIZE", "RESIDENT", "WHAT"].map(str::to_owned).to_vec();
    let lines = sums.into_iter().map(|(what, (places, bytes, resident_bytes))| {
        vec![places.to_string(), output::binary_size(bytes), output::binary_size(resident_bytes), what]
    });
    output::aligned(&std::iter::once(header).chain(lines).collect::<Vec<_>>())
}

/// A mapping as proc_pid_smaps(5) shows it.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    permissions: &'a str,
    path: &'a str,
    bytes: u64,
    resident_bytes: u64,
}

impl Mapping<'_> {
    fn what(&self) -> &str {
        let is_code = self.path.contains(".cwasm");
        match (is_code, self.permissions.as_bytes()) {
            (true, [_, _, b'x', ..]) => "the program's code",
            (true, [_, b'w', ..]) => "memory of the program, as it was at the beginning",
            (true, _) => "the code's description",
            (false, [b'-', b'-', ..]) => "reserved: an access there is a trap",
            (false, _) if self.path.is_empty() => "memory of the program or the engine",
            (false, _) => self.path,
        }
    }
}

fn mappings(smaps: &str) -> Vec<Mapping<'_>> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
        let kilobytes = || second.parse::<u64>().unwrap_or(0) << 10;
        match (first, mappings.last_mut()) {
            ("Size:", Some(mapping)) => mapping.bytes = kilobytes(),
            ("Rss:", Some(mapping)) => mapping.resident_bytes = kilobytes(),
            _ if first.contains('-') && !first.ends_with(':') => {
                let path = words.nth(3).and_then(|path| line.find(path).map(|at| &line[at..])).unwrap_or_default();
                mappings.push(Mapping { permissions: second, path, bytes: 0, resident_bytes: 0 });
            }
            _ => {}
        }
    }
    mappings
}

fn row(name: &str, what: impl Into<String>) -> Vec<String> {
    vec![name.to_owned(), what.into()]
}

fn section(text: &mut String, title: &str, rows: &[Vec<String>]) {
    let _ = writeln!(text, "{title}:");
    output::aligned(rows).lines().for_each(|line| indented(text, line));
    if rows.is_empty() {
        indented(text, "none");
    }
}

fn indented(text: &mut String, line: &str) {
    let _ = writeln!(text, "  {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_told_by_what_they_are() {
        let smaps = "7f0000000000-7f0000001000 r-xp 00000000 fe:00 9      /a b/compiled/x.cwasm\nSize:                  4 kB\nRss:                   4 kB\n\
             7f0000002000-7f0100000000 ---p 00000000 00:00 0 \nSize:            4194296 kB\nRss:                   0 kB\nVmFlags: mr\n";
        let found = mappings(smaps);
        let told: Vec<(&str, u64, u64)> = found.iter().map(|one| (one.what(), one.bytes, one.resident_bytes)).collect();
        assert_eq!(
            told,
            [("the program's code", 4096, 4096), ("reserved: an access there is a trap", 4_294_959_104, 0)]
        );
        assert_eq!(found[0].path, "/a b/compiled/x.cwasm");
    }
}
