//! Volumes, by the commands of their own.

use serde_json::Value;

use crate::sandbox::Sandbox;

#[test]
fn volumes_are_listed_inspected_and_removed_unless_a_container_has_them() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    assert_eq!(sandbox.ok(["volume", "ls"]), "DRIVER    VOLUME NAME\n");
    assert_eq!(sandbox.ok(["volume", "create", "made"]), "made\n");
    sandbox.ok(["run", "--name", "writer", "-v", "data:/data", &busybox, "touch", "/data/x"]);
    assert_eq!(sandbox.ok(["volume", "ls", "-q"]), "data\nmade\n");
    assert_eq!(sandbox.ok(["volume", "ls", "-q", "-f", "dangling=true"]), "made\n");

    let described = sandbox.ok(["volume", "inspect", "data"]);
    let described: Value = serde_json::from_str(&described).expect("JSON");
    let folder = described[0]["Mountpoint"].as_str().expect("a path").to_owned();
    assert!(std::path::Path::new(&folder).join("x").exists(), "{folder}");
    assert_eq!(sandbox.run(["volume", "inspect", "none"]).code, Some(1));

    let message = sandbox.fails(1, ["volume", "rm", "data"]);
    assert!(message.contains("used by container writer") && message.contains("amphora rm writer"), "{message}");
    sandbox.ok(["rm", "writer"]);
    assert_eq!(sandbox.ok(["volume", "rm", "data", "made"]), "data\nmade\n");
    assert!(!std::path::Path::new(&folder).exists());
    let message = sandbox.fails(1, ["volume", "rm", "data"]);
    assert!(message.contains("no such volume: data"), "{message}");
    assert_eq!(sandbox.ok(["volume", "rm", "-f", "data"]), "data\n");
    assert!(sandbox.fails(1, ["volume", "rm", "../containers"]).contains("invalid volume name"));
}

#[test]
fn prune_spares_named_volumes_unless_all_are_asked_for() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["volume", "create", "named"]);
    sandbox.ok(["run", "--name", "keeps", "-v", "/kept", &busybox, "true"]);
    sandbox.ok(["run", "--name", "gone", "-v", "/lost", &busybox, "true"]);
    sandbox.ok(["rm", "gone"]);
    assert_eq!(sandbox.ok(["volume", "ls", "-q"]).lines().count(), 3);
    let said = sandbox.ok(["volume", "prune", "-f"]);
    assert!(said.starts_with("Deleted Volumes:\n") && said.lines().count() == 4, "{said}");
    assert_eq!(sandbox.ok(["volume", "prune", "-a", "-f"]), "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 0B\n");
    assert_eq!(sandbox.ok(["volume", "ls", "-q"]).lines().count(), 1);
    sandbox.ok(["rm", "-v", "keeps"]);
    assert_eq!(sandbox.ok(["volume", "ls", "-q"]), "");
    assert!(sandbox.fails(1, ["volume", "prune"]).contains("volume prune -f"));
}
