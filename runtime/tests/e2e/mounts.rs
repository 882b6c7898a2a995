//! Mounts that few ask for: another image's files, a part of a volume, memory of somebody's.

use std::fs;

use crate::sandbox::Sandbox;

#[test]
fn another_images_files_are_shown_and_nothing_more() {
    let Some((sandbox, [busybox, hello])) = Sandbox::with(["busybox:latest", "hello:linux"]) else { return };
    let mount = |image: &str| format!("type=image,source={image},target=/i");
    let run = |image: &str, script: &str| {
        sandbox.run(["run", "--rm", "--mount", &mount(image), &busybox, "sh", "-c", script])
    };
    let ended = run(&busybox, "/i/bin/busybox echo said; touch /i/new; ls / | grep -c '^i$'");
    assert_eq!(ended.stdout, "said\n1\n", "{ended}");
    assert!(ended.stderr.contains("Read-only"), "{ended}");
    assert!(sandbox.refuses(["run", "--rm", "--mount", &mount("missing:1"), &busybox, "true"]).contains("missing:1"));
    // A node that an image has opens nothing here either.
    if sandbox.is_root() {
        sandbox.ok(["run", "--name", "maker", &busybox, "mknod", "/node", "c", "1", "5"]);
        sandbox.ok(["commit", "maker", "node:1"]);
        let ended = run("node:1", "stat -c %F /i/node; head -c 1 /i/node");
        assert!(ended.stdout == "character special file\n" && ended.stderr.contains("ermission denied"), "{ended}");
        sandbox.ok(["rm", "maker"]);
        sandbox.ok(["rmi", "node:1"]);
    }
    // As long as somebody has it, it stays.
    sandbox.ok(["create", "--name", "web", "--mount", &mount(&hello), &busybox, "ls", "/i"]);
    sandbox.fails(1, ["rmi", &hello]);
    sandbox.ok(["start", "-a", "web"]);
    assert_eq!(sandbox.inspect("web", "(index .Mounts 0).Type"), "image");
    sandbox.ok(["rm", "web"]);
    sandbox.ok(["rmi", &hello]);
    sandbox.check_clean();
}

#[test]
fn a_part_of_a_volume_is_mounted_and_no_link_of_it_followed() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok([
        "run",
        "--rm",
        "-v",
        "vol:/v",
        &busybox,
        "sh",
        "-c",
        "mkdir -p /v/a/b; echo in > /v/a/b/f; ln -s /etc /v/link; ln -s a /v/in",
    ]);
    let run = |subpath: &str, more: &str| {
        let mount = format!("type=volume,source=vol,target=/x,volume-subpath={subpath}{more}");
        sandbox.run(["run", "--rm", "--mount", &mount, &busybox, "sh", "-c", "cat /x/f; touch /x/new; ls /x"])
    };
    assert_eq!(run("a/b", "").stdout, "in\nf\nnew\n");
    let readonly = run("a/b", ",readonly");
    assert!(readonly.stderr.contains("Read-only"), "{readonly}");
    for (subpath, more) in [("link", ""), ("in/b", ""), ("missing", ""), ("link/passwd", "")] {
        let ended = run(subpath, more);
        assert!(ended.code == Some(125) && ended.stderr.contains(subpath), "{subpath}: {ended}");
    }
    assert!(
        sandbox
            .refuses(["run", "--rm", "--mount", "type=volume,source=vol,target=/x,volume-subpath=../..", &busybox])
            .contains("../..")
    );
    sandbox.ok(["volume", "rm", "vol"]);
    sandbox.check_clean();
}

#[test]
fn memory_belongs_to_whom_it_is_said() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let (uid, gid) = if sandbox.is_root() { (7, 8) } else { (0, 0) };
    let mount = format!("/t:uid={uid},gid={gid},mode=700,size=1m");
    let script = "stat -c '%u:%g %a' /t; cp /bin/busybox /t/echo && /t/echo no; mknod /t/node c 1 5 && head -c 1 /t/node; df -k /t | tail -n 1";
    let ended = sandbox.run(["run", "--rm", "--tmpfs", &mount, &busybox, "sh", "-c", script]);
    assert!(ended.stdout.starts_with(&format!("{uid}:{gid} 700\n")), "{ended}");
    assert!(!ended.stdout.contains("no\n"), "{ended}");
    sandbox.check_clean();
}

/// What the host mounts later is seen by who asked for it, and refused where it could not be.
#[test]
fn later_mounts_pass_as_was_said() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let folder = sandbox.work().join("shared");
    fs::create_dir(&folder).expect("a folder");
    let source = folder.display().to_string();
    let bind = |propagation: &str| format!("{source}:/d:{propagation}");
    if !sandbox.is_root() {
        return println!("skipped: only root mounts something on the host");
    }
    // In a mount namespace of their own, so that nothing of this machine's changes.
    let in_namespace = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        let own = sandbox.command(["run"]);
        command.args(["-m", "sh", "-ec", script, "sh"]).arg(own.get_program());
        command.args(own.get_args().take_while(|word| *word != "run"));
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        crate::session::Session::start(command).wait()
    };
    let prepare = format!("mount -t tmpfs t {source}; mkdir {source}/late");
    let private = in_namespace(&format!(
        "{prepare}; mount --make-private {source}; \"$@\" run --rm -v {} {busybox} true",
        bind("rslave")
    ));
    assert!(private.stderr.contains("not shared") && private.code == Some(125), "{private}");
    for (propagation, seen) in [("rslave", "x"), ("rshared", "x"), ("rprivate", "")] {
        let ended = in_namespace(&format!(
            "{prepare}; mount --make-shared {source}
             \"$@\" run -d --name web -v {} {busybox} sleep 1000 >/dev/null
             mount -t tmpfs t {source}/late; touch {source}/late/x
             \"$@\" exec web ls /d/late; \"$@\" inspect -f '{{{{(index .Mounts 0).Propagation}}}}' web; \"$@\" rm -f web >/dev/null",
            bind(propagation)
        ));
        let lines: Vec<&str> = ended.stdout.lines().filter(|line| !line.is_empty()).collect();
        let expected: Vec<&str> = [seen, propagation].into_iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, expected, "{ended}");
    }
}
