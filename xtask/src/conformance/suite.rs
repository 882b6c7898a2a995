//! The tests of a checkout of WebAssembly/wasi-testsuite, and what each asks for (its doc/specification.md).

use super::http::{Endpoint, Exchange, Fields, Reply, Server};
use crate::command::read_text;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// One program, and what is to be done with it.
pub(super) struct Case {
    /// Of its folder.
    pub(super) suite: String,
    /// The program's, without its ending.
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// It answers requests, instead of running to its end.
    pub(super) serves: bool,
    pub(super) sockets: bool,
    /// HTTP servers that it asks.
    pub(super) servers: Vec<Server>,
    pub(super) operations: Vec<Operation>,
}

/// One step of a test.
pub(super) enum Operation {
    Run { args: Vec<String>, env: Vec<(String, String)>, root: Option<PathBuf> },
    Wait { exit_code: i32 },
    Read { stderr: bool, payload: String },
    Write { payload: String },
    Connect,
    Send { payload: String },
    Receive { payload: String },
    Request(Exchange),
    Kill { signal: String },
    Other(String),
}

/// All of them, by folder and name.
pub(super) fn find(tests: &Path) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for language in entries(tests)? {
        for folder in entries(&language.join("testsuite")).unwrap_or_default() {
            let programs = entries(&folder)?;
            for program in programs.iter().filter(|path| path.extension().is_some_and(|ending| ending == "wasm")) {
                cases.push(read(&folder, program).with_context(|| format!("{}", program.display()))?);
            }
        }
    }
    if cases.is_empty() {
        bail!("{}: no programs in */testsuite/*; is this the branch prod/testsuite-base?", tests.display());
    }
    Ok(cases)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = listed.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn read(folder: &Path, program: &Path) -> Result<Case> {
    let manifest: Value = serde_json::from_str(&read_text(&folder.join("manifest.json"))?)?;
    let specification = program.with_extension("json");
    let config = match specification.exists() {
        true => serde_json::from_str(&read_text(&specification)?)?,
        false => Value::Null,
    };
    let asks_for = |name: &str| strings(&config["proposals"]).iter().any(|proposal| proposal == name);
    Ok(Case {
        suite: text(&manifest["name"], "?"),
        name: program.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        program: program.to_owned(),
        serves: config["world"] == "wasi:http/service",
        sockets: asks_for("sockets"),
        servers: config["servers"].as_array().into_iter().flatten().map(server).collect(),
        operations: operations(folder, &config),
    })
}

/// Those of the newer form; the older one says the same with fields of its own.
fn operations(folder: &Path, config: &Value) -> Vec<Operation> {
    if let Some(listed) = config["operations"].as_array() {
        return listed.iter().map(|operation| parse(folder, operation)).collect();
    }
    let read = |stderr: bool, value: &Value| {
        value.as_str().map(|payload| Operation::Read { stderr, payload: payload.to_owned() })
    };
    [
        Some(run(folder, config)),
        read(false, &config["stdout"]),
        read(true, &config["stderr"]),
        Some(Operation::Wait { exit_code: exit_code(config) }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn parse(folder: &Path, operation: &Value) -> Operation {
    let payload = || text(&operation["payload"], "");
    match text(&operation["type"], "").as_str() {
        "run" => run(folder, operation),
        "wait" => Operation::Wait { exit_code: exit_code(operation) },
        "read" => Operation::Read { stderr: operation["id"] == "stderr", payload: payload() },
        "write" => Operation::Write { payload: payload() },
        "connect" => Operation::Connect,
        "send" => Operation::Send { payload: payload() },
        "recv" => Operation::Receive { payload: payload() },
        "request" => Operation::Request(exchange(operation)),
        "kill" => Operation::Kill { signal: text(&operation["signal"], "SIGTERM") },
        other => Operation::Other(other.to_owned()),
    }
}

fn exchange(operation: &Value) -> Exchange {
    let expected = &operation["response"];
    Exchange {
        method: text(&operation["method"], "GET"),
        path: text(&operation["path"], "/"),
        headers: fields(&operation["headers"]),
        body: text(&operation["body"], ""),
        status: status(expected),
        expected_headers: fields(&expected["headers"]),
        expected_body: text(&expected["body"], ""),
    }
}

fn server(config: &Value) -> Server {
    Server {
        name: text(&config["name"], "?"),
        listens: config["kind"] != "closed",
        endpoints: config["endpoints"].as_array().into_iter().flatten().map(endpoint).collect(),
    }
}

fn endpoint(config: &Value) -> Endpoint {
    let response = &config["response"];
    let reply = match text(&config["mode"], "static").as_str() {
        "echo-body" => Reply::EchoBody,
        "echo-headers" => Reply::EchoHeaders,
        _ if response["chunks"].is_array() => Reply::Chunked {
            status: status(response),
            headers: fields(&response["headers"]),
            chunks: strings(&response["chunks"]),
            trailers: fields(&response["trailers"]),
        },
        // The shorter form is its body alone.
        _ => Reply::Fixed {
            status: status(response),
            headers: fields(&response["headers"]),
            body: response.as_str().map_or_else(|| text(&response["body"], ""), str::to_owned),
        },
    };
    Endpoint { method: text(&config["method"], "GET"), path: text(&config["path"], "/"), reply }
}

fn status(response: &Value) -> u16 {
    response["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(200)
}

fn fields(config: &Value) -> Fields {
    let fields = config.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), text(value, ""))).collect()
}

fn run(folder: &Path, config: &Value) -> Operation {
    let env = config["env"].as_object().into_iter().flatten();
    Operation::Run {
        args: strings(&config["args"]),
        env: env.map(|(name, value)| (name.clone(), text(value, ""))).collect(),
        root: config["root"].as_str().map(|root| folder.join(root)),
    }
}

fn exit_code(config: &Value) -> i32 {
    config["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(0)
}

fn text(value: &Value, otherwise: &str) -> String {
    value.as_str().unwrap_or(otherwise).to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|word| text(word, "")).collect()
}
