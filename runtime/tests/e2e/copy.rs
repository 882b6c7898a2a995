//! Files copied out of containers and into them, what they change, and what volumes begin with.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use crate::sandbox::Sandbox;

#[test]
fn files_are_copied_both_ways_running_or_not() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let script = "mkdir -p /data/sub && echo text > /data/sub/file && ln -sf sub/file /data/link && sleep 1000";
    sandbox.ok(["run", "-d", "--name", "web", "-v", "vol:/vol", &busybox, "sh", "-c", script]);
    crate::session::until("its files", || {
        (sandbox.run(["exec", "web", "test", "-L", "/data/link"]).code == Some(0)).then_some(())
    });
    let work = sandbox.work();
    fs::create_dir_all(work.join("in/deep")).expect("a folder");
    fs::write(work.join("in/deep/new"), "new").expect("a file");
    fs::set_permissions(work.join("in/deep/new"), fs::Permissions::from_mode(0o750)).expect("a mode");
    for running in [true, false] {
        if !running {
            sandbox.ok(["stop", "-t", "0", "web"]);
        }
        let out = work.join(format!("out-{running}"));
        let out = out.to_str().expect("a path");
        // To a name that is not there; into a directory; its contents only; a link, and what it leads to.
        sandbox.ok(["cp", "web:/data", out]);
        assert_eq!(fs::read_to_string(format!("{out}/sub/file")).expect("the copy"), "text\n", "{running}");
        assert_eq!(fs::read_link(format!("{out}/link")).expect("a link").to_str(), Some("sub/file"));
        sandbox.ok(["cp", "web:/data/sub", out]);
        sandbox.ok(["cp", "web:data/sub/.", &format!("{out}/.")]);
        assert_eq!(fs::read_to_string(format!("{out}/file")).expect("the copy"), "text\n");
        sandbox.ok(["cp", "-L", "web:/data/link", &format!("{out}/followed")]);
        assert!(fs::symlink_metadata(format!("{out}/followed")).expect("the copy").is_file());
        let said = sandbox.run(["cp", "in", "web:/put"]).stderr;
        assert!(said.starts_with("Successfully copied 3B to web:/put"), "{said}");
        sandbox.ok(["cp", "-q", "in/deep/new", &format!("web:/vol/of-{running}")]);
        assert!(sandbox.fails(1, ["cp", "web:/missing", out]).contains("/missing"));
        assert!(sandbox.fails(1, ["cp", "in", "web:/data/sub/file"]).contains("directory"));
        assert!(sandbox.fails(1, ["cp", "in/deep/new", "web:/nowhere/"]).contains("does not exist"));
    }
    sandbox.ok(["start", "web"]);
    let shown = sandbox.ok(["exec", "web", "sh", "-c", "cat /put/deep/new; stat -c ' %a %u' /put/deep/new; ls /vol"]);
    assert_eq!(shown, "new 750 0\nof-false\nof-true\n");
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.ok(["volume", "rm", "vol"]);
    sandbox.check_clean();
}

/// CVE-2018-15664, CVE-2019-10152: a link of the container's was followed on the host.
#[test]
fn links_of_a_container_lead_a_copy_nowhere_else() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let victim = sandbox.file("victim", "host");
    let folder = sandbox.work();
    let folder = folder.to_str().expect("a path");
    let script = format!(
        "mkdir -p {folder} /d && echo inside > {victim}; ln -s {victim} /d/file; ln -s {folder} /d/folder; \
         ln -s ../../../../../../../../{victim} /d/up; sleep 1000"
    );
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sh", "-c", &script]);
    crate::session::until("its links", || {
        (sandbox.run(["exec", "web", "test", "-L", "/d/up"]).code == Some(0)).then_some(())
    });
    for (source, name) in [("web:/d/file", "a"), ("web:/d/up", "b"), ("web:/d/folder/victim", "c")] {
        let target = format!("{folder}/{name}");
        sandbox.ok(["cp", "-L", source, &target]);
        assert_eq!(fs::read_to_string(&target).expect("the copy"), "inside\n", "{source}");
    }
    let new = sandbox.file("new", "new");
    sandbox.ok(["cp", &new, "web:/d/folder/put"]);
    assert!(!sandbox.work().join("put").exists());
    sandbox.ok(["cp", &new, "web:/d/file"]);
    assert_eq!(fs::read_to_string(&victim).expect("the victim"), "host");
    // Nor does one of the user's own that is in the way of what comes out.
    symlink(&victim, sandbox.work().join("target")).expect("a link");
    sandbox.ok(["cp", "web:/d/folder/put", &format!("{folder}/target")]);
    assert_eq!(fs::read_to_string(&victim).expect("the victim"), "host");
}

/// The same while they change: a directory and a link to the host's take turns.
#[test]
fn a_link_that_changes_meanwhile_leads_nowhere_else_either() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let outside = sandbox.work().join("outside");
    fs::create_dir(&outside).expect("a folder");
    let outside_text = outside.to_str().expect("a path");
    let script = format!("cd /; mkdir a; ln -s {outside_text} b; while :; do mv a x; mv b a; mv a b; mv x a; done");
    sandbox.ok(["run", "-d", "--name", "web", &busybox, "sh", "-c", &script]);
    let new = sandbox.file("new", "new");
    for _ in 0..100 {
        let ended = sandbox.run(["cp", "-q", &new, "web:/a/new"]);
        assert!(matches!(ended.code, Some(0 | 1)), "{ended}");
        let ended = sandbox.run(["cp", "-q", "web:/a/.", "out"]);
        assert!(matches!(ended.code, Some(0 | 1)), "{ended}");
    }
    assert_eq!(fs::read_dir(&outside).expect("listed").count(), 0);
}

#[test]
fn what_a_container_has_changed_is_shown() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["create", "--name", "web", &busybox, "true"]);
    assert_eq!(sandbox.ok(["diff", "web"]), "");
    let script = "mkdir /new && touch /new/file && rm /bin/true && echo x > /bin/false.txt";
    sandbox.ok(["run", "--name", "changed", &busybox, "sh", "-c", script]);
    let lines = sandbox.ok(["diff", "changed"]);
    let lines: Vec<&str> = lines.lines().collect();
    for line in ["C /bin", "A /bin/false.txt", "D /bin/true", "A /new", "A /new/file"] {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
    assert!(lines.iter().all(|line| !line.contains("/etc/hosts") && !line.ends_with(" /proc")), "{lines:?}");
}

#[test]
fn a_new_volume_begins_with_what_the_image_has_there() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    let list = "ls /bin | head -n 1; stat -c %a /bin";
    let in_image = sandbox.ok(["run", "--rm", &busybox, "sh", "-c", list]);
    let beside = ["run", "--rm", "-v", "programs:/bin", &busybox, "sh", "-c", list];
    assert_eq!(sandbox.ok(beside), in_image);
    // What is in a volume already stays as it is.
    sandbox.ok(["run", "--rm", "-v", "programs:/bin", &busybox, "sh", "-c", "rm /bin/true"]);
    assert_eq!(sandbox.run(["run", "--rm", "-v", "programs:/bin", &busybox, "test", "-e", "/bin/true"]).code, Some(1));
    let empty = ["run", "--rm", "-v", "empty:/bin:nocopy", &busybox, "true"];
    assert_eq!(sandbox.run(empty).code, Some(127));
    let from = sandbox.root().join("volumes/programs/_data");
    assert_eq!(fs::metadata(&from).expect("the volume").mode() & 0o7777, 0o755);
    assert!(!sandbox.root().join("volumes/programs/filling").exists());
    sandbox.ok(["volume", "rm", "programs", "empty"]);
}

#[test]
fn volumes_of_another_container_are_mounted_too() {
    let Some((sandbox, [busybox])) = Sandbox::with(["busybox:latest"]) else { return };
    sandbox.ok(["run", "--name", "data", "-v", "vol:/vol", &busybox, "sh", "-c", "echo text > /vol/file"]);
    assert_eq!(sandbox.ok(["run", "--rm", "--volumes-from", "data", &busybox, "cat", "/vol/file"]), "text\n");
    let read_only = sandbox.run(["run", "--rm", "--volumes-from", "data:ro", &busybox, "touch", "/vol/file"]);
    assert_ne!(read_only.code, Some(0), "{read_only}");
    assert!(sandbox.fails(125, ["run", "--rm", "--volumes-from", "nobody", &busybox, "true"]).contains("nobody"));
    sandbox.ok(["rm", "data"]);
    sandbox.ok(["volume", "rm", "vol"]);
}
