//! A day's work as a script (`docker/day.sh`), which prints the same with amphora as it did with a real Docker (`docker/day.txt`, of
//! daemon 20.10.24).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    sandbox::{Sandbox, fixture},
    session::{Ended, Session},
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/docker").join(name)
}

/// What the script prints when each line begins so.
fn worked(command: &[String], folder: &Path) -> Ended {
    let mut script = Command::new("sh");
    script.arg(file("day.sh")).args(command).current_dir(folder).stdin(Stdio::null()).env("AMPHORA_NETWORK", "none");
    Session::start(script).wait()
}

/// Without the tools that only one of two machines has: `no TOOL here`, or `ran` and its code.
fn comparable(printed: &str) -> Vec<String> {
    let (mut lines, mut is_tools) = (Vec::new(), false);
    for line in printed.lines() {
        if line == "new" {
            is_tools = true;
        } else if is_tools
            && (line == "ran"
                || line.ends_with(" here")
                || (line == "(0)" && lines.last().is_some_and(|last| last == "new")))
        {
            continue;
        } else {
            is_tools = false;
        }
        lines.push(line.to_owned());
    }
    lines
}

#[test]
fn a_days_work_is_the_same_as_with_docker() {
    let (Some(sandbox), Some(busybox)) = (Sandbox::new(), fixture("busybox")) else { return };
    if !sandbox.is_root() {
        return println!("skipped: an ordinary user may have no cgroup to be paused in, and no user 1234");
    }
    let archive = sandbox.work().join("rootfs.tar");
    let packed = Command::new("tar").arg("-C").arg(busybox).arg("-cf").arg(&archive).arg(".").status();
    assert!(packed.expect("tar").success());
    sandbox.ok(["import", "-c", "CMD [\"sh\"]", "rootfs.tar", "day:1"]);
    let day = sandbox.work().join("day");
    fs::create_dir(&day).expect("a folder");
    let own = sandbox.command(["--"]);
    let words = [own.get_program()].into_iter().chain(own.get_args().take_while(|word| *word != "--"));
    let command: Vec<String> = words.map(|word| word.to_str().expect("UTF-8").to_owned()).collect();
    let ended = worked(&command, &day);
    assert!(!ended.stderr.contains("panicked"), "{ended}");
    let recorded = fs::read_to_string(file("day.txt")).expect("what Docker printed");
    let (docker, ours) = (comparable(&recorded), comparable(&ended.stdout));
    let differing =
        docker.iter().zip(&ours).position(|(one, other)| one != other).unwrap_or(docker.len().min(ours.len()));
    let around = |lines: &[String]| lines[differing.saturating_sub(3)..lines.len().min(differing + 3)].join("\n");
    assert_eq!(docker, ours, "Docker:\n{}\nours:\n{}\n{}", around(&docker), around(&ours), ended.stderr);
    sandbox.run(["volume", "rm", "data"]);
    sandbox.check_clean();
}

/// With a daemon's socket, whether the transcript is still what it prints; the daemon has nothing of its own.
#[test]
fn a_days_work_is_that_of_a_real_docker() {
    let Ok(socket) = std::env::var("AMPHORA_TEST_DOCKER") else {
        return println!("skipped: no socket of a Docker daemon in AMPHORA_TEST_DOCKER");
    };
    let (Some(sandbox), Some(busybox)) = (Sandbox::new(), fixture("busybox")) else { return };
    let archive = sandbox.work().join("rootfs.tar");
    let packed = Command::new("tar").arg("-C").arg(busybox).arg("-cf").arg(&archive).arg(".").status();
    assert!(packed.expect("tar").success());
    let command = ["docker", "-H", &socket].map(str::to_owned);
    let imported = Command::new("docker")
        .args(&command[1..])
        .args(["import", "-c", "CMD [\"sh\"]"])
        .arg(&archive)
        .arg("day:1")
        .status();
    assert!(imported.expect("docker").success());
    let day = sandbox.work().join("day");
    fs::create_dir(&day).expect("a folder");
    let ended = worked(&command, &day);
    let remove = Command::new("docker").args(&command[1..]).args(["rmi", "-f", "day:1"]).stdout(Stdio::null()).status();
    assert!(remove.expect("docker").success());
    let recorded = fs::read_to_string(file("day.txt")).expect("what Docker printed");
    assert_eq!(comparable(&recorded), comparable(&ended.stdout), "{ended}");
}
