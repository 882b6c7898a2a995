//! Pulling: what a registry may ask for or answer.

use std::env;

use crate::{sandbox::Sandbox, session::Session};

#[test]
fn a_password_is_asked_for_and_checked() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Ok(registry) = env::var("AMPHORA_TEST_REGISTRY_AUTH") else { return };
    let image = format!("{registry}/hello:linux");
    let message = sandbox.fails(1, ["pull", &image]);
    assert!(message.contains("401") && message.contains("--creds"), "{message}");
    let message = sandbox.fails(1, ["pull", "--creds", "amphora:wrong", &image]);
    assert!(message.contains("401") && message.contains("password is wrong"), "{message}");
    assert!(!message.contains("amphora:wrong"), "{message}");
    sandbox.ok(["pull", "--creds", "amphora:vessel", &image]);
    assert_eq!(sandbox.ok(["run", "--rm", "--pull", "never", &image]), "hello from linux\n");
}

#[test]
fn credentials_are_found_where_docker_keeps_them() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Ok(registry) = env::var("AMPHORA_TEST_REGISTRY_AUTH") else { return };
    // `amphora:vessel` in base64.
    let config = format!(r#"{{"auths": {{"{registry}": {{"auth": "YW1waG9yYTp2ZXNzZWw="}}}}}}"#);
    sandbox.file("config.json", config);
    let mut command = sandbox.command(["pull", "-q", &format!("{registry}/hello:wasm")]);
    command.env("DOCKER_CONFIG", sandbox.work());
    let ended = Session::start(command).wait();
    assert_eq!(ended.code, Some(0), "{ended}");
}

/// Docker's client asked another registry than the one named when the helper was missing (CVE-2021-41092).
#[test]
fn a_credential_helper_that_is_not_there_changes_no_request() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Ok(private) = env::var("AMPHORA_TEST_REGISTRY_AUTH") else { return };
    let helpers = format!(r#""credHelpers": {{"{private}": "none"}}"#);
    sandbox.file("config.json", format!(r#"{{"auths": {{"{private}": {{}}}}, "credsStore": "none", {helpers}}}"#));
    let pull = |image: &str| {
        let mut command = sandbox.command(["pull", "-q", image]);
        command.env("DOCKER_CONFIG", sandbox.work());
        Session::start(command).wait()
    };
    let ended = pull(&sandbox.image("hello:linux"));
    assert_eq!(ended.code, Some(0), "{ended}");
    let ended = pull(&format!("{private}/hello:linux"));
    assert!(ended.code == Some(1) && ended.stderr.contains(&private), "{ended}");
    assert!(ended.stderr.contains("401") && ended.stderr.contains("helpers are not asked"), "{ended}");
    assert_eq!(sandbox.ok(["images", "--format", "{{.Repository}}"]).lines().count(), 1);
}

#[test]
fn certificates_are_checked_unless_the_user_says_otherwise() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (Ok(registry), Ok(authority)) = (env::var("AMPHORA_TEST_REGISTRY_TLS"), env::var("AMPHORA_TEST_REGISTRY_CA"))
    else {
        return;
    };
    let image = format!("{registry}/hello:linux");
    let message = sandbox.fails(1, ["pull", "-q", &image]);
    assert!(message.to_lowercase().contains("certificate"), "{message}");
    sandbox.ok(["pull", "-q", "--tls-verify=false", &image]);
    sandbox.ok(["rmi", &image]);
    let mut command = sandbox.command(["pull", "-q", &image]);
    command.env("SSL_CERT_FILE", authority);
    let ended = Session::start(command).wait();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(sandbox.ok(["run", "--rm", &image]), "hello from linux\n");
}

#[test]
fn what_a_registry_does_not_have_is_named() {
    let Some(sandbox) = Sandbox::new() else { return };
    for name in ["hello:no-such-tag", "no-such-repository:latest"] {
        let image = sandbox.image(name);
        for words in [&["pull", &image][..], &["run", "--rm", &image]] {
            let message = sandbox.refuses(words.iter());
            assert!(message.contains("404") && message.contains(&image), "{message}");
        }
    }
    let unknown = format!("{}@sha256:{}", sandbox.image("hello"), "0".repeat(64));
    let message = sandbox.fails(1, ["pull", &unknown]);
    assert!(message.contains("404"), "{message}");
    let message = sandbox.fails(1, ["pull", "localhost:1/x"]);
    assert!(message.contains("refuses connections") && message.contains("localhost:1"), "{message}");
    sandbox.check_clean();
}

#[test]
fn an_image_with_wrong_contents_is_not_kept() {
    let Some(sandbox) = Sandbox::new() else { return };
    let message = sandbox.fails(1, ["pull", &sandbox.image("broken:diff-id")]);
    assert!(message.contains("diff id"), "{message}");
    assert_eq!(sandbox.ok(["images", "-q"]), "");
    assert_eq!(sandbox.run(["system", "prune", "-f"]).code, Some(0));
    sandbox.check_clean();
}

#[test]
fn an_image_with_an_unknown_layer_is_stored_and_names_it_when_run() {
    let Some((sandbox, [image])) = Sandbox::with(["broken:layer-type"]) else { return };
    let message = sandbox.fails(126, ["run", "--rm", &image]);
    assert!(message.contains("application/vnd.example.layer.v1.cpio+lzma"), "{message}");
}

#[test]
fn a_digest_pins_an_image() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    let digest = sandbox.inspect(&hello, ".Id");
    let pinned = format!("{}@{digest}", sandbox.image("hello"));
    assert_eq!(sandbox.ok(["run", "--rm", "--pull", "never", &pinned]), "hello from linux\n");
    sandbox.ok(["rmi", "-f", &digest]);
    assert_eq!(sandbox.ok(["images", "-q"]), "");
    sandbox.ok(["pull", "-q", &pinned]);
    assert_eq!(sandbox.ok(["run", "--rm", &pinned]), "hello from linux\n");
    assert_eq!(sandbox.ok(["run", "--rm", &digest]), "hello from linux\n");
    let both = format!("{hello}@{digest}");
    sandbox.ok(["pull", "-q", &both]);
    let wrong = format!("{hello}@{}", sandbox.inspect(&sandbox.pull("hello:wasm"), ".Id"));
    assert_eq!(sandbox.ok(["run", "--rm", &wrong]), "hello from wasm\n", "the digest decides, not the tag");
}

#[test]
fn pull_asks_the_registry_only_when_it_should() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hello = sandbox.image("hello:linux");
    let message = sandbox.fails(125, ["run", "--rm", "--pull", "never", &hello]);
    assert!(message.contains("--pull=never"), "{message}");
    let ended = sandbox.run(["run", "--rm", &hello]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "hello from linux\n"), "{ended}");
    assert!(ended.stderr.contains("Unable to find image"), "{ended}");
    let ended = sandbox.run(["run", "--rm", &hello]);
    assert_eq!(ended.stderr, "", "the store is asked first");
    for policy in ["always", "newer", "missing"] {
        assert_eq!(sandbox.ok(["run", "--rm", "--pull", policy, &hello]), "hello from linux\n", "{policy}");
    }
    // A tag that moved on: here the name of another image.
    sandbox.ok(["tag", &sandbox.pull("hello:wasm"), &hello]);
    assert_eq!(sandbox.ok(["run", "--rm", &hello]), "hello from wasm\n");
    assert_eq!(sandbox.ok(["run", "--rm", "--pull", "newer", &hello]), "hello from linux\n");
}
