//! A container started through the request type: no command line, no printing. What the program does is what
//! `amphora run` would have had it do.

use std::{env, fs, path::PathBuf};

use amphora::{Host, Limits, MountKind, MountSpec, Network, Propagation, Request};
use images::{Selection, archive};

/// Where the archives of the end-to-end tests are, if they are there and containers can be made from many threads.
fn archives() -> Option<PathBuf> {
    let Some(fixtures) = env::var_os("AMPHORA_TEST_FIXTURES") else {
        println!("skipped: no fixtures; run cargo xtask test");
        return None;
    };
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only a process of one thread can become root in a user namespace, and this one has several");
        return None;
    }
    Some(PathBuf::from(fixtures).join("archives"))
}

#[test]
fn a_request_starts_a_container_without_the_command_line() {
    let Some(archives) = archives() else { return };
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let host = Host::open(Some(folder.path().join("root")), Some(folder.path().join("run"))).unwrap();
    let loaded = archive::load(host.store(), &archives.join("busybox.docker.tar"), &|_| Ok(())).unwrap();
    loaded.into_iter().for_each(|image| drop(image.unwrap()));
    let image = host.store().resolve("busybox", &Selection::default()).unwrap().unwrap();
    let request = |script: &str| Request {
        image: "busybox".into(),
        command: ["sh", "-c", script].map(str::to_owned).into(),
        env: vec!["WHO=gateway".into()],
        hostname: Some("of-a-request".into()),
        mounts: vec![MountSpec {
            target: "/shared".into(),
            readonly: false,
            kind: MountKind::Bind { source: shared.clone(), recursive: true, propagation: Propagation::Private },
        }],
        network: Some(Network::None),
        auto_remove: true,
        ..Request::default()
    };
    let code = amphora::run(&host, &image, request("echo $WHO $(hostname) > /shared/said; exit 7")).unwrap();
    assert_eq!((code, fs::read_to_string(shared.join("said")).unwrap().as_str()), (7, "gateway of-a-request\n"));

    let timed = Request { limits: Limits { timeout_ms: Some(200), ..Limits::default() }, ..request("sleep 60") };
    assert_eq!(amphora::run(&host, &image, timed).unwrap(), 124);

    let absent = Request { command: vec!["/no/such/program".into()], ..request("") };
    let error = format!("{:#}", amphora::run(&host, &image, absent).unwrap_err());
    assert!(error.contains("/no/such/program"), "{error}");
    let left: Vec<_> = fs::read_dir(folder.path().join("run/containers")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
