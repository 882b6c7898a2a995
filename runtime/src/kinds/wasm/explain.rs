//! What `image explain` says of a Wasm program.

use anyhow::Result;
use images::program::{self, Form, Program};
use serde_json::{Value, json};
use wasm_exec::NetworkGrant;

/// Names and values.
pub(super) fn fields(bytes: &[u8]) -> Result<Vec<(&'static str, Value)>> {
    let Program { form, role, imports, exports, memory } = program::inspect(bytes)?;
    let missing = wasm_exec::unprovided_imports(bytes, NetworkGrant::None)?;
    let form = match form {
        Form::Module => "module",
        Form::Component => "component",
    };
    let runs = missing.is_empty() && role == program::Role::Command;
    let mut fields = vec![
        ("form", json!(form)),
        ("role", json!(format!("{role:?}").to_lowercase())),
        ("imports", json!(imports)),
        ("exports", json!(exports)),
    ];
    if let Some((initial, maximum)) = memory {
        fields.push(("memory_initial_bytes", json!(initial)));
        fields.push(("memory_maximum_bytes", json!(maximum)));
    }
    fields.push(("missing", json!(missing)));
    fields.push(("needs", json!(needs(&imports))));
    fields.push(("runs_here", json!(runs)));
    Ok(fields)
}

/// Which grants the imports would make use of, as flags of `run`.
fn needs(imports: &[String]) -> Vec<&'static str> {
    let uses = |words: &[&str]| imports.iter().any(|import| words.iter().any(|word| import.contains(word)));
    let mut needs = Vec::new();
    if uses(&["path_open", "wasi:filesystem"]) {
        needs.push("directories: grant them with -v SOURCE:TARGET, if it is to see files");
    }
    if uses(&["sock_", "wasi:sockets"]) {
        needs.push("sockets: grant them with --network host, if it is to use the network");
    }
    if uses(&["wasi:http"]) {
        needs.push("an HTTP server or client: not provided");
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_named_as_flags() {
        let imports = ["wasi_snapshot_preview1::path_open".to_owned(), "wasi:sockets/tcp@0.2.0".to_owned()];
        assert_eq!(needs(&imports).len(), 2);
        assert!(needs(&["wasi_snapshot_preview1::fd_write".to_owned()]).is_empty());
    }
}
