//! Which flags of `run` grant what a program imports.

use anyhow::{Error, Result, anyhow};
use images::program::{self, Program, Role};
use wasm_exec::{Proposals, RunError};

/// A grant, and the beginnings of the imports that make use of it.
struct Grant {
    /// As it is typed.
    flag: &'static str,
    /// What it gives.
    what: &'static str,
    imports: &'static [&'static str],
}

/// What there is to grant. Nothing is given for clocks, random numbers, arguments and output, which every program has.
const GRANTS: [Grant; 8] = [
    Grant {
        flag: "-v SOURCE:TARGET",
        what: "directories",
        imports: &["wasi:filesystem/", "wasi_snapshot_preview1::path_", "wasi_snapshot_preview1::fd_prestat_"],
    },
    Grant {
        flag: "--allow-net HOST:PORT",
        what: "connections",
        imports: &["wasi:http/outgoing-handler@", "wasi:http/client@", "wasi:sockets/"],
    },
    Grant { flag: "--network NETWORK", what: "sockets on that network", imports: &["wasi:sockets/"] },
    Grant {
        flag: "-p HOST_PORT:PORT",
        what: "sockets that listen, its descriptors from 3 on",
        imports: &["wasi_snapshot_preview1::sock_"],
    },
    Grant { flag: "--config NAME=VALUE", what: "values", imports: &["wasi:config/"] },
    Grant { flag: "--kv NAME[=VOLUME]", what: "a store", imports: &["wasi:keyvalue/"] },
    Grant {
        flag: "-e NAME=VALUE",
        what: "variables",
        imports: &["wasi:cli/environment@", "wasi_snapshot_preview1::environ_"],
    },
    Grant { flag: "-i", what: "standard input", imports: &["wasi:cli/stdin@", "wasi_snapshot_preview1::fd_read"] },
];

impl Grant {
    fn serves(&self, import: &str) -> bool {
        self.imports.iter().any(|beginning| import.starts_with(beginning))
    }
}

/// One line for each grant that imports would make use of: the flag, and which imports.
pub(super) fn needs(imports: &[String]) -> Vec<String> {
    let line = |grant: &Grant| {
        let served: Vec<&str> = imports.iter().map(String::as_str).filter(|import| grant.serves(import)).collect();
        (!served.is_empty()).then(|| format!("{} grants {}, for {}", grant.flag, grant.what, served.join(", ")))
    };
    GRANTS.iter().filter_map(line).collect()
}

/// Without these flags a program that imports so is not started: the flag is named, and as it is typed at the least.
const REQUIRED: [(&str, &str); 2] = [("wasi:config/", "--config NAME=VALUE"), ("wasi:keyvalue/", "--kv default")];

/// The flag that gives an import something, if there is one.
pub(super) fn flag_of(import: &str) -> Option<&'static str> {
    GRANTS.iter().find(|grant| grant.serves(import)).map(|grant| grant.flag)
}

/// An import that is not provided, and why, where its name tells.
pub(super) fn missing(import: &str) -> String {
    const PACKAGES: [&str; 7] =
        ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:http", "wasi:io", "wasi:random", "wasi:sockets"];
    let package = import.split('/').next().unwrap_or(import);
    let granted =
        REQUIRED.iter().find(|(beginning, _)| import.starts_with(beginning) && wasm_exec::is_granted_by_value(import));
    if let Some((_, flag)) = granted {
        return format!("{import} ({flag} grants it)");
    }
    let why = if PACKAGES.contains(&package) {
        "this version of WASI is not known here: 0.2 and 0.3 are, with any last number"
    } else if package.starts_with("wasi_unstable") {
        "WASI of 2019; build the program again for wasm32-wasip1"
    } else if ["wasi::thread-spawn", "env::memory"].contains(&import) {
        "threads of WASI p1 share a memory and this host's files, of which nothing here is made for several threads at once: build the \
         program without them"
    } else if ["fermyon:", "spin:"].iter().any(|own| package.starts_with(own)) {
        "an interface of Spin's own: no flag grants it"
    } else if package.starts_with("wasi:") {
        "this part of WASI is not provided: no flag grants it"
    } else {
        "it is no part of WASI: no flag grants it"
    };
    format!("{import} ({why})")
}

/// Why a program is not started; of each import that is missing, what would grant it, or why nothing does.
pub(super) fn refusal(error: &RunError) -> Error {
    match error {
        RunError::Imports { missing: imports } => {
            let missing: Vec<String> = imports.iter().map(|import| missing(import)).collect();
            anyhow!("this program imports what is not provided here: {}", missing.join(", "))
        }
        other => anyhow!("{other}"),
    }
}

/// The shortest command line that runs a program, and below what more flags would give it.
pub(super) fn command_line(name: &str, bytes: &[u8]) -> Result<String> {
    let Program { role, imports, exports, .. } = program::inspect(bytes)?;
    let mut flags = Vec::new();
    let mut notes = Vec::new();
    match wasm_exec::missing_proposals(bytes, Proposals::default()) {
        Some(Ok(names)) => flags.push(format!("--wasm {} ", names.join(","))),
        Some(Err(lacking)) => {
            notes.push(format!("it does not run here: the engine does not have the proposal {lacking}"));
        }
        None => {}
    }
    for (beginning, flag) in REQUIRED {
        if imports.iter().any(|import| import.starts_with(beginning) && wasm_exec::is_granted_by_value(import)) {
            flags.push(format!("{flag} "));
        }
    }
    match role {
        Role::Command => {}
        Role::Function if exports.iter().any(|export| wasm_exec::http::is_handler(export)) => {
            flags.push("-p HOST_PORT:PORT ".to_owned());
        }
        Role::Function => {
            notes.push("it does not run here: it answers HTTP requests of a version that is not known".to_owned());
        }
        Role::Library => {
            flags.push("--invoke 'FUNCTION(ARGUMENTS)' ".to_owned());
            notes.push(format!("it exports {}", exports.join(", ")));
        }
    }
    let missing_imports = wasm_exec::unprovided_imports(bytes)?;
    notes.extend(missing_imports.iter().map(|import| format!("it does not run here: it imports {}", missing(import))));
    notes.extend(needs(&imports));
    let notes: String = notes.iter().map(|note| format!("\n# {note}")).collect();
    Ok(format!("amphora run {}{name}{notes}", flags.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_named_as_flags_with_what_they_are_for() {
        let imports = ["wasi_snapshot_preview1::path_open".to_owned(), "wasi:sockets/tcp@0.2.0".to_owned()];
        let [directories, connections, sockets]: [String; 3] = needs(&imports).try_into().expect("three");
        assert_eq!(directories, "-v SOURCE:TARGET grants directories, for wasi_snapshot_preview1::path_open");
        assert_eq!(connections, "--allow-net HOST:PORT grants connections, for wasi:sockets/tcp@0.2.0");
        assert_eq!(sockets, "--network NETWORK grants sockets on that network, for wasi:sockets/tcp@0.2.0");
        assert!(needs(&["wasi_snapshot_preview1::fd_write".to_owned()]).is_empty());
    }

    #[test]
    fn what_is_missing_says_why() {
        assert!(missing("wasi:cli/run@0.4.0").contains("0.2 and 0.3"));
        assert!(missing("wasi:nn/tensor@0.2.0").contains("this part of WASI"));
        assert!(missing("wasi:config/store@0.2.0-rc.1").contains("(--config NAME=VALUE grants it)"));
        assert!(missing("wasi:keyvalue/store@0.2.0-draft").contains("(--kv default grants it)"));
        assert!(missing("wasi:keyvalue/store@0.3.0").contains("no flag grants it"));
        assert!(missing("wasi_unstable::fd_write").contains("2019"));
        assert!(missing("env::print").contains("no part of WASI"));
        assert!(missing("wasi::thread-spawn").contains("without them") && missing("env::memory").contains("threads"));
        assert!(missing("fermyon:spin/redis@2.0.0").contains("Spin's own"));
    }

    #[test]
    fn the_shortest_command_line_runs_it() {
        let module = |text: &str| wat::parse_str(text).expect("a module");
        let command = module(r#"(module (func (export "_start")))"#);
        assert_eq!(command_line("a/b", &command).expect("a line"), "amphora run a/b");
        let library = module(r#"(module (memory 1 (pagesize 1)) (func (export "f")))"#);
        let line = command_line("a/b", &library).expect("a line");
        let first = "amphora run --wasm custom-page-sizes --invoke 'FUNCTION(ARGUMENTS)' a/b";
        assert_eq!(line.lines().collect::<Vec<_>>(), [first, "# it exports f"]);
        let other = module(r#"(module (import "env" "f" (func)) (func (export "_start")))"#);
        let line = command_line("a/b", &other).expect("a line");
        assert!(line.contains("# it does not run here: it imports env::f (it is no part"), "{line}");
    }
}
