//! `amphora bench` beside peers that do what peers do at their worst. Times are no part of it: what counts, what does not, and
//! what is said of it.

use std::fs;

use serde_json::Value;

use crate::sandbox::{Sandbox, is_second_kernel};

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
    rows.iter().find(|row| row["subject"] == subject && row["contender"] == contender && row["temperature"] == "warm")
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
        if sandbox.is_root() && !is_second_kernel() {
            let seen = &row["got"]["seen"];
            assert_eq!((&seen["seccomp"], &seen["no_new_privileges"]), (&Value::from(2), &Value::from(true)), "{row}");
            let namespaces = seen["namespaces"].as_array().expect("namespaces");
            assert!(namespaces.contains(&"mnt".into()), "{row}");
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
    assert!(sandbox.fails(1, ["bench", "compare", &cut, after]).contains("not whole"));
}
