//! What `image explain` says of a Wasm program.

use anyhow::Result;
use images::program::{self, Form, Program};
use serde_json::{Value, json};

use super::grants;

/// Names and values.
pub(super) fn fields(bytes: &[u8]) -> Result<Vec<(&'static str, Value)>> {
    let Program { form, role, imports, exports, memory } = program::inspect(bytes)?;
    let missing = wasm_exec::unprovided_imports(bytes)?;
    let form = match form {
        Form::Module => "module",
        Form::Component => "component",
    };
    let runs = missing.is_empty()
        && match role {
            program::Role::Command => true,
            program::Role::Function => exports.iter().any(|export| wasm_exec::http::is_handler(export)),
            program::Role::Library => false,
        };
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
    let served = (role == program::Role::Function)
        .then_some("a port: publish it with -p HOST_PORT:PORT, at which it answers HTTP".to_owned());
    fields.push(("needs", json!(served.into_iter().chain(grants::needs(&imports)).collect::<Vec<_>>())));
    fields.push(("runs_here", json!(runs)));
    Ok(fields)
}
