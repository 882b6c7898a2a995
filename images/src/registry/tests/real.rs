//! A real registry (Debian's docker-registry) on a loopback port, filled by skopeo.

use super::{Counter, Place, noise, quick};
use crate::{
    Reference, Selection,
    import::{self, Changes},
    registry::{RegistryOptions, pull, remote_digest},
};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// `user:secret` as htpasswd(1) -B writes it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry, until it is dropped.
struct Registry {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// None, with the reason printed, where it is not installed.
    fn start(with_user: bool) -> Option<Self> {
        for tool in ["docker-registry", "skopeo"] {
            if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
                println!("skipped: {tool} is not installed");
                return None;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (root, users) = (folder.path().join("data"), folder.path().join("htpasswd"));
        fs::write(&users, HTPASSWD).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display());
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{}",
            root.display(),
            if with_user { &auth } else { "" }
        );
        let path = folder.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let registry = Self { child, port, _folder: folder };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(registry);
            }
            thread::sleep(Duration::from_millis(25));
        }
        panic!("docker-registry does not listen on port {port}");
    }

    fn reference(&self, name: &str) -> Reference {
        format!("localhost:{}/{name}", self.port).parse().unwrap()
    }

    /// Copies an image of a store with skopeo, which reads the store's layout itself.
    fn push(&self, root: &Path, image: &Reference, name: &str, format: &str) {
        let from = format!("oci:{}:{image}", root.join("image-layout").display());
        let to = format!("docker://localhost:{}/{name}", self.port);
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--dest-creds=user:secret"]);
        let done = command.args(["--format", format, &from, &to]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn images_of_both_kinds_come_back_from_a_real_registry() {
    let Some(registry) = Registry::start(false) else { return };
    let (source, target) = (Place::new(), Place::new());
    let big = noise(3 << 20);
    let changes = Changes { cmd: Some(vec!["/bin/x".into()]), ..Changes::default() };
    let linux = import::import_files(
        &source.store,
        &[("bin/x", 0o755, b"#!"), ("big", 0o644, &big)],
        &registry.reference("l:1"),
        &changes,
    )
    .unwrap();
    let wasm =
        import::import_wasm(&source.store, b"(module (func (export \"_start\")))", &registry.reference("w:1")).unwrap();
    registry.push(source.folder.path(), &registry.reference("l:1"), "l:1", "oci");
    registry.push(source.folder.path(), &registry.reference("l:1"), "l:docker", "v2s2");
    registry.push(source.folder.path(), &registry.reference("w:1"), "w:1", "oci");
    for tag in ["l:1", "l:docker"] {
        let image = target.pull(&registry.reference(tag).to_string(), &quick()).unwrap();
        assert_eq!(target.read(&image, "big").unwrap(), big);
        assert_eq!(image.config.config().as_ref().unwrap().cmd(), linux.config.config().as_ref().unwrap().cmd());
    }
    let pulled = target.pull(&registry.reference("w:1").to_string(), &quick()).unwrap();
    assert_eq!((pulled.digest, pulled.classification.class), (wasm.digest.clone(), wasm.classification.class));
    assert_eq!(remote_digest(&registry.reference("w:1"), &quick()).unwrap(), wasm.digest.to_string());
    let by_digest = Reference { tag: None, digest: Some(wasm.digest.to_string()), ..registry.reference("w") };
    target.pull(&by_digest.to_string(), &quick()).unwrap();
    let missing = target.pull(&registry.reference("nothing:1").to_string(), &quick()).unwrap_err().to_string();
    assert!(missing.contains("404") && missing.contains("check the name and the tag"), "{missing}");
    assert_eq!(target.store.check(false).unwrap().leftovers, Vec::<String>::new());
}

#[test]
fn a_real_registry_with_a_user_wants_the_right_password() {
    let Some(registry) = Registry::start(true) else { return };
    let source = Place::new();
    import::import_wasm(&source.store, b"(module)", &registry.reference("w:1")).unwrap();
    registry.push(source.folder.path(), &registry.reference("w:1"), "w:1", "oci");
    let with = |password: &str| RegistryOptions { credentials: Some(("user".into(), password.into())), ..quick() };
    let reference = registry.reference("w:1").to_string();
    let target = Place::new();
    target.pull(&reference, &with("secret")).unwrap();
    let target = Place::new();
    for (options, expected) in
        [(with("wrong"), "the user or the password is wrong"), (quick(), "it wants a user and a password")]
    {
        let error = target.pull(&reference, &options).unwrap_err().to_string();
        assert!(error.contains("401") && error.contains(expected), "{error}");
    }
    assert_eq!(target.everything(), Vec::<String>::new());
}

/// Rootless containers need a process with one thread. Run in a process of its own, as the test harness has threads
/// too.
#[test]
fn after_a_pull_there_is_no_thread_more_than_before() {
    const INSIDE: &str = "AMPHORA_TEST_PULL_INSIDE";
    let threads = || fs::read_dir("/proc/self/task").unwrap().count();
    let made = super::Made::usual();
    if let Ok(reference) = std::env::var(INSIDE) {
        let (place, before) = (Place::new(), threads());
        pull(&place.store, &reference.parse().unwrap(), &Selection::default(), &quick(), &Counter::default(), &|_| {
            Ok(())
        })
        .unwrap();
        assert_eq!(threads(), before);
        return;
    }
    let server = super::Server::start(made.files, |_| None);
    let name = "registry::tests::real::after_a_pull_there_is_no_thread_more_than_before";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let run = command.args(["--exact", name, "--test-threads=1"]).env(INSIDE, super::app(&server)).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}
