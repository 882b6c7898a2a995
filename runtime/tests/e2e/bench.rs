//! `amphora bench` beside peers that do what peers do at their worst. Times are no part of it: what counts, what does not, and
//! what is said of it.

use std::{fs, process::Command};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    sandbox::{Sandbox, is_second_kernel},
    session::{Session, until},
};

/// What the built-in program writes.
const GREETING: &str = "Hello from a vessel of Linux code.";

/// Results of a few runs beside these peers, and what was printed.
fn measured(sandbox: &Sandbox, more: &[&str]) -> (Value, String) {
    let report = sandbox.work().join("report");
    let report_text = report.to_str().expect("UTF-8");
    let few = ["bench", "--peers", "", "--runs", "4", "--seed", "7", "--only", "start,size"];
    let printed = sandbox.ok([&few[..], &["--report", report_text], more].concat());
    let json = fs::read_to_string(report.join("results.json")).expect("results.json");
    (serde_json::from_str(&json).expect("JSON"), printed)
}

fn row<'r>(results: &'r Value, subject: &str, contender: &str) -> Option<&'r Value> {
    let rows = results["rows"].as_array().expect("rows");
    let is_wanted = |row: &&Value| {
        row["subject"] == subject
            && row["contender"] == contender
            && row["temperature"] == "warm"
            && row["until"] == "exit"
    };
    rows.iter().find(is_wanted)
}

#[test]
fn both_kinds_are_measured_and_what_they_got_is_seen() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (results, printed) = measured(&sandbox, &[]);
    assert!(
        printed.contains("vessel:linux (linux), warm") && printed.contains("vessel:wasm (wasm), cold"),
        "{printed}"
    );
    for subject in ["vessel:linux", "vessel:wasm"] {
        let row = row(&results, subject, "amphora").expect("a row");
        assert_eq!((row["samples"].as_array().map(Vec::len), &row["failures"]), (Some(4), &Value::from(0)), "{row}");
        // That one's ptrace tells of no end.
        if !is_second_kernel() {
            let seen = &row["got"]["seen"];
            assert_eq!((&seen["seccomp"], &seen["no_new_privileges"]), (&Value::from(2), &Value::from(true)), "{row}");
            let namespaces = seen["namespaces"].as_array().expect("namespaces");
            assert!(namespaces.contains(&"mnt".into()) && namespaces.contains(&"pid".into()), "{row}");
            assert_eq!(namespaces.contains(&"user".into()), !sandbox.is_root(), "{row}");
            assert_eq!(namespaces.contains(&"net".into()), subject == "vessel:linux", "{row}");
        }
    }
    for name in ["results.csv", "report.md", "report.html"] {
        assert!(sandbox.work().join("report").join(name).is_file(), "{name}");
    }
}

#[test]
fn peers_that_do_not_do_the_work_are_told_and_not_timed() {
    let Some(sandbox) = Sandbox::new() else { return };
    let script =
        |name: &str, text: &str| format!("{name}=sh {}", sandbox.file(name, format!("echo '{GREETING}'\n{text}")));
    let count = sandbox.file("count", "");
    let every_third = format!("echo >> {count}; test $(($(wc -l < {count}) % 3)) != 0");
    let peers = [
        script("third", &every_third),
        script("forks", "(sleep 1000 > /dev/null 2>&1 &)"),
        "hangs=sleep 1000".to_owned(),
        "silent=true".to_owned(),
        "gone=/no/such/program".to_owned(),
        "much=head -c 100000000 /dev/zero".to_owned(),
        script("good", "true"),
    ];
    let flags = peers.iter().flat_map(|peer| ["--peer", peer]);
    let flags: Vec<&str> = flags.chain(["--timeout", "10"]).collect();
    let (results, printed) = measured(&sandbox, &flags);
    for (name, reason) in [
        ("hangs", "no end after 10s: killed"),
        ("silent", "it wrote 0 bytes, which are not what amphora's run writes"),
        ("gone", "cannot start /no/such/program"),
        ("much", "it wrote 100000000 bytes"),
        ("forks", "it left 1 processes behind, which were killed"),
    ] {
        assert!(printed.contains(&format!("not measured: {name} with vessel:linux: {reason}")), "{name}: {printed}");
        assert!(row(&results, "vessel:linux", name).is_none(), "{name}");
    }
    assert_eq!(row(&results, "vessel:linux", "good").expect("a row")["failures"], 0);
    let third = row(&results, "vessel:linux", "third").expect("a row");
    let (failed, counted) = (third["failures"].as_u64(), third["samples"].as_array().map(Vec::len));
    assert!(failed.is_some_and(|failed| failed > 0) && counted.is_some_and(|counted| counted > 0), "{third}");
    assert!(printed.contains("runs failed, and do not count: it ended with 1 instead of 0"), "{printed}");
}

#[test]
fn images_of_the_user_are_measured_with_their_arguments() {
    let Some((sandbox, [image])) = Sandbox::with(["busybox"]) else { return };
    let (results, _) = measured(&sandbox, &[&image, "--", "echo", "a b"]);
    let row = row(&results, &image, "amphora").expect("a row");
    assert!(row["command"].as_str().expect("text").ends_with("echo 'a b'"), "{row}");
    let failing = ["bench", "--peers", "", "--runs", "1", "--only", "start", &image, "--", "false"];
    let refusal = sandbox.fails(1, failing);
    assert!(refusal.contains("it ends with 1 (--allow-failure times it all the same)"), "{refusal}");
    sandbox.ok([&["bench", "--allow-failure"], &failing[1..]].concat());
    let missing = sandbox.fails(1, ["bench", "nowhere:1"]);
    assert!(missing.contains("no image nowhere:1 here"), "{missing}");
}

#[test]
fn two_benchmarks_are_compared_and_a_slower_peer_is_found() {
    let Some(sandbox) = Sandbox::new() else { return };
    let script = sandbox.file("peer", format!("echo '{GREETING}'"));
    let (_, _) = measured(&sandbox, &["--peer", &format!("peer=sh {script}")]);
    let before = sandbox.file("before.json", fs::read(sandbox.work().join("report/results.json")).expect("results"));
    sandbox.file("peer", format!("echo '{GREETING}'; sleep 0.3"));
    let (_, _) = measured(&sandbox, &["--peer", &format!("peer=sh {script}")]);
    let after = sandbox.work().join("report/results.json");
    let after = after.to_str().expect("UTF-8");
    let compared = sandbox.run(["bench", "compare", "--threshold", "100%", &before, after]);
    assert_eq!(compared.code, Some(1), "{}", compared.stdout);
    let is_slower = |line: &str| line.contains("peer") && line.ends_with("slower");
    assert!(compared.stdout.lines().any(is_slower), "{}", compared.stdout);
    let cut = sandbox.file("cut.json", &fs::read(&before).expect("results")[..500]);
    assert!(sandbox.fails(2, ["bench", "compare", &cut, after]).contains("not whole"));
    // 1 says that something got slower, and nothing else does.
    assert!(sandbox.fails(2, ["bench", "compare", "/no/such", after]).contains("cannot read /no/such"));
    let refusal = sandbox.fails(2, ["bench", "compare", "--relative-to", "nobody", &before, after]);
    assert!(refusal.contains("nobody is no yardstick"), "{refusal}");
    let relative = ["bench", "compare", "--threshold", "100%", "--relative-to", "amphora", &before, after];
    let compared = sandbox.run(relative);
    assert!(compared.code == Some(1) && compared.stdout.contains("BEFORE MS ÷ amphora's"), "{}", compared.stdout);
    sandbox.ok(["bench", "compare", "--threshold", "1000%", after, after]);
}

/// Rows of a table that is no table of starts.
fn rows_until<'r>(results: &'r Value, until: &str, subject: &str) -> Vec<&'r Value> {
    let rows = results["rows"].as_array().expect("rows").iter();
    rows.filter(|row| row["until"] == until && row["subject"] == subject).collect()
}

#[test]
fn servers_and_pulls_are_measured_of_both_kinds() {
    let Some(sandbox) = Sandbox::new() else { return };
    let silent = "--peer=silent=sleep 60 {port}";
    let (results, printed) = measured(&sandbox, &["--only", "http,pull", silent, "--timeout", "5"]);
    for subject in ["vessel:linux serve", "vessel:function"] {
        let rows = rows_until(&results, "answer", subject);
        let own = rows.iter().find(|row| row["contender"] == "amphora");
        let own = own.unwrap_or_else(|| panic!("{subject}: {printed}"));
        assert!(own["samples"][0]["request_ms"].as_f64().is_some_and(|request| request > 0.0), "{own}");
        if !is_second_kernel() {
            assert_eq!(own["got"]["seen"]["seccomp"], 2, "{own}");
        }
        // On a network of its own, which not everybody may have.
        let published = rows.iter().any(|row| row["contender"] == "amphora -p");
        let is_told = printed.contains(&format!("not measured: amphora -p with {subject}: "));
        let is_expected = match subject {
            "vessel:function" => !published,
            _ => published || (is_told && !sandbox.is_root()),
        };
        assert!(is_expected, "{printed}");
        assert!(
            printed.contains(&format!("not measured: silent with {subject}: it did not answer at port ")),
            "{printed}"
        );
    }
    for subject in ["vessel:linux", "vessel:wasm"] {
        let rows = rows_until(&results, "ready", subject);
        assert_eq!((rows.len(), &rows[0]["contender"]), (1, &Value::from("amphora")), "{printed}");
        assert!(
            rows[0]["command"].as_str().is_some_and(|command| command.contains(" pull -q 127.0.0.1:")),
            "{printed}"
        );
    }
}

#[test]
fn what_was_measured_until_it_is_interrupted_is_written() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (count, report) = (sandbox.file("count", ""), sandbox.work().join("report"));
    let script = sandbox.file("peer", format!("echo '{GREETING}'; echo >> {count}"));
    let peer = format!("peer=sh {script}");
    let words =
        ["bench", "--peers", "", "--peer", &peer, "--runs", "100000", "--report", report.to_str().expect("UTF-8")];
    let session = sandbox.start(words);
    // Beyond what it is tried and warmed up with.
    until("rounds", || fs::read_to_string(&count).is_ok_and(|count| count.len() > 12).then_some(()));
    session.signal(Signal::SIGINT);
    let ended = session.wait();
    assert_eq!(ended.code, Some(130), "{ended}");
    assert!(ended.stdout.contains("it was interrupted: this is not all that was asked for"), "{ended}");
    let results: Value =
        serde_json::from_slice(&fs::read(report.join("results.json")).expect("results")).expect("JSON");
    assert_eq!(results["partial"], true);
    let row = row(&results, "vessel:linux", "peer").expect("a row");
    assert!(row["samples"].as_array().is_some_and(|samples| !samples.is_empty()), "{row}");
    sandbox.check_clean();
}

#[test]
fn a_report_that_finds_no_space_loses_no_figures() {
    let Some(sandbox) = Sandbox::new() else { return };
    let file = sandbox.file("file", "");
    let refusal = sandbox.fails(1, ["bench", "--quick", "--report", &file]);
    assert!(refusal.contains(&format!("cannot make {file}")), "{refusal}");
    if !sandbox.is_root() {
        println!("skipped: only root can make a file system that is full");
        return;
    }
    let report = sandbox.work().join("report");
    fs::create_dir(&report).expect("a folder");
    let bench = sandbox.command(["bench", "--peers", "", "--runs", "8", "--report", "report"]);
    let mut unshare = Command::new("unshare");
    let script = "mount -t tmpfs -o size=8k none report && exec \"$0\" \"$@\"";
    unshare.args(["--mount", "sh", "-c", script]).arg(bench.get_program()).args(bench.get_args());
    let ended = Session::start({
        unshare.current_dir(sandbox.work());
        unshare
    })
    .wait();
    assert!(ended.code == Some(1) && ended.stdout.contains("vessel:linux (linux), warm"), "{ended}");
    assert!(ended.stderr.contains("cannot write report/results.json: No space left"), "{ended}");
}

#[test]
fn images_that_do_not_end_are_named_and_killed() {
    let Some((sandbox, [image])) = Sandbox::with(["busybox"]) else { return };
    let words =
        ["bench", "--peers", "", "--runs", "1", "--timeout", "5", "--only", "start", &image, "--", "sleep", "1000"];
    let refusal = sandbox.fails(1, words);
    assert!(refusal.contains(&format!("amphora with {image}: no end after 5s: killed")), "{refusal}");
    sandbox.check_clean();
}
