//! Spin applications: those parts that run here do, and each other part is named.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    functions::{get, is, port},
    sandbox::{Sandbox, fixture},
};

const APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";

/// Writes a blob of an image layout, and gives its descriptor.
fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    let unnamed = blobs.join("unnamed");
    fs::write(&unnamed, bytes).expect("a blob");
    let sum = Command::new("sha256sum").arg(&unnamed).output().expect("sha256sum").stdout;
    let digest = String::from_utf8_lossy(&sum[..64]).into_owned();
    fs::rename(unnamed, blobs.join(&digest)).expect("a blob");
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}

/// An application of one program.
fn store(sandbox: &Sandbox, name: &str, program: &[u8], triggers: &Value) -> String {
    store_all(sandbox, name, &[("web", program)], triggers)
}

/// An application, described as `spin registry push` does, in the store under this name.
fn store_all(sandbox: &Sandbox, name: &str, programs: &[(&str, &[u8])], triggers: &Value) -> String {
    let layout = sandbox.work().join(name);
    let put = |media_type: &str, bytes: &[u8]| blob(&layout, media_type, bytes);
    let layers: Vec<Value> =
        programs.iter().map(|(_, bytes)| put("application/vnd.wasm.content.layer.v1+wasm", bytes)).collect();
    let components = programs.iter().zip(&layers).map(|((id, _), layer)| {
        json!({ "id": id, "env": { "GREETING": "ahoy", "PART": id },
                "source": { "content_type": "application/wasm", "digest": layer["digest"] } })
    });
    let application = json!({
        "spin_lock_version": 1,
        "metadata": { "name": name },
        "triggers": triggers,
        "components": components.collect::<Vec<_>>(),
    });
    let application = put(APPLICATION, application.to_string().as_bytes());
    let config = json!({ "os": "wasip1", "architecture": "wasm", "rootfs": { "type": "layers", "diff_ids": [] } });
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": std::iter::once(application).chain(layers).collect::<Vec<_>>(),
    });
    let mut entry = put("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    let image = format!("local/{name}:latest");
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": image });
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout");
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), index.to_string()).expect("a layout");
    sandbox.ok(["load", "-i", layout.to_str().expect("a path")]);
    image
}

fn http() -> Value {
    json!({ "id": "t", "trigger_type": "http", "trigger_config": { "component": "web", "route": "/..." } })
}

#[test]
fn the_http_component_of_an_application_is_served() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(function) = fixture("functions/handler.wasm") else { return };
    let program = fs::read(function).expect("a program");
    let image = store(&sandbox, "app", &program, &json!([http()]));
    let explained = sandbox.ok(["image", "explain", &image]);
    for line in ["kind: spin", "rule: 6", "triggers: http /...: component web", "runs_here: true"] {
        assert!(explained.lines().any(|found| found == line), "{line}: {explained}");
    }
    sandbox.ok(["run", "-d", "--name", "web", "-p", "127.0.0.1::80", &image]);
    is(&get(port(&sandbox, "web"), "/"), 200);
    assert!(sandbox.inspect("web", ".Config.Env").contains("GREETING=ahoy"));
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.ok(["rmi", &image]);
    sandbox.check_clean();
}

#[test]
fn what_does_not_run_of_an_application_is_named() {
    let Some(sandbox) = Sandbox::new() else { return };
    let component = |import: &str| {
        let text = format!(
            r#"(component (import "{import}" (instance (export "f" (func))))
                (core module $m (func (export "handle") (param i32 i32)))
                (core instance $m (instantiate $m)))"#
        );
        wat::parse_str(text).expect("a component")
    };
    let cron = json!({ "id": "t", "trigger_type": "cron", "trigger_config": { "component": "web" } });
    let image = store(&sandbox, "cron", &component("wasi:cli/stdout@0.2.0"), &json!([http(), cron]));
    let told = sandbox.fails(126, ["run", "--rm", "-p", "127.0.0.1::80", &image]);
    assert!(told.contains("a Spin application that does not run here") && told.contains("`cron`"), "{told}");
    let image = store(&sandbox, "redis", &component("fermyon:spin/redis@2.0.0"), &json!([http()]));
    let told = sandbox.fails(126, ["run", "--rm", &image]);
    assert!(told.contains("it exports nothing") || told.contains("fermyon:spin/redis"), "{told}");
    let explained = sandbox.ok(["image", "explain", &image]);
    assert!(
        explained.contains("missing: fermyon:spin/redis@2.0.0") && explained.contains("runs_here: false"),
        "{explained}"
    );
}

fn http_of(component: &str) -> Value {
    json!({ "id": component, "trigger_type": "http",
            "trigger_config": { "component": component, "route": format!("/{component}/...") } })
}

/// Each is a function of its own; what starts others does not matter to it.
#[test]
fn a_component_of_an_application_is_chosen() {
    let Some(sandbox) = Sandbox::new() else { return };
    let [Some(answers), Some(other)] = ["functions/handler.wasm", "functions/concurrent.wasm"].map(fixture) else {
        return;
    };
    let [answers, other] = [answers, other].map(|path| fs::read(path).expect("a program"));
    let lacking = wat::parse_str(r#"(component (import "fermyon:spin/redis@2.0.0" (instance (export "f" (func)))))"#);
    let lacking = lacking.expect("a component");
    let cron = json!({ "id": "t", "trigger_type": "cron", "trigger_config": { "component": "other" } });
    let programs = [("web", &answers[..]), ("other", &other[..]), ("lacking", &lacking[..])];
    let triggers = json!([http_of("web"), http_of("other"), http_of("lacking"), cron]);
    let image = store_all(&sandbox, "several", &programs, &triggers);

    let told = sandbox.fails(126, ["run", "--rm", "-p", "127.0.0.1::80", &image]);
    for part in ["as a whole (--component NAME", "3 of its components answer requests (lacking, other, web)", "`cron`"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = sandbox.fails(125, ["run", "--rm", "-p", "127.0.0.1::80", "--component", "moon", &image]);
    assert!(told.contains("no component `moon`") && told.contains("lacking, other, web"), "{told}");
    let told = sandbox.fails(126, ["run", "--rm", "--component", "lacking", &image]);
    assert!(told.contains("fermyon:spin/redis") || told.contains("it exports nothing"), "{told}");
    let explained = sandbox.ok(["image", "explain", &image]);
    for line in [
        "components: lacking: does not run here, as it imports fermyon:spin/redis@2.0.0",
        "components: other: runs here, with --component other",
        "components: web: runs here, with --component web",
        "triggers: http /web/...: component web",
    ] {
        assert!(explained.lines().any(|found| found == line), "{line}: {explained}");
    }
    let line = sandbox.ok(["run", "--explain-grants", "--component", "web", &image]);
    assert!(line.starts_with(&format!("amphora run -p HOST_PORT:PORT --component web {image}")), "{line}");
    // All of them were compiled when the image came.
    let compiled = || sandbox.stored("compiled").len();
    assert_eq!(compiled(), 3);
    for (component, status) in [("web", 200), ("other", 203)] {
        sandbox.ok(["run", "-d", "--name", component, "-p", "127.0.0.1::80", "--component", component, &image]);
        is(&get(port(&sandbox, component), "/"), status);
        assert!(sandbox.inspect(component, ".Config.Env").contains(&format!("PART={component}")));
    }
    // What was chosen stays chosen.
    sandbox.ok(["restart", "web"]);
    is(&get(port(&sandbox, "web"), "/"), 200);
    assert_eq!(compiled(), 3);
    sandbox.ok(["rm", "-f", "web", "other"]);
    sandbox.check_clean();
    sandbox.ok(["rmi", &image]);
    assert_eq!(compiled(), 0);
    sandbox.check_clean();
}

#[test]
fn what_is_no_application_has_no_components() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:wasm"]) else { return };
    let told = sandbox.fails(125, ["run", "--rm", "--component", "web", &hello]);
    assert!(told.contains("no Spin application"), "{told}");
}
