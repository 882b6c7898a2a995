use super::*;
use serde_json::{Value, json};

fn digest(seed: usize) -> String {
    format!("sha256:{seed:064x}")
}

/// An index entry for `os/arch[/variant]`, for no platform, or one with an annotation.
fn entry(seed: usize, platform: &str) -> Value {
    let mut entry = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(seed), "size": 1,
    });
    let parts: Vec<&str> = platform.split('/').collect();
    if let [os, architecture, variant @ ..] = parts.as_slice() {
        entry["platform"] = json!({ "os": os, "architecture": architecture });
        if let [variant] = variant {
            entry["platform"]["variant"] = json!(variant);
        }
    }
    if platform == "attestation" {
        entry["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    }
    entry
}

fn nested(seed: usize) -> Value {
    json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(seed), "size": 1 })
}

fn index(entries: &[Value]) -> ImageIndex {
    serde_json::from_value(json!({ "schemaVersion": 2, "manifests": entries })).unwrap()
}

/// Runs the search over indexes numbered from 0; entries are numbered from 100 in the order of `platforms`.
fn search(selection: &Selection, indexes: &[ImageIndex]) -> Result<String, SelectError> {
    let mut search = Search::new(selection, &digest(0));
    search.add(&indexes[0])?;
    loop {
        match search.next()? {
            Step::Chosen(manifest) => return Ok(manifest.digest().to_string()),
            Step::Fetch(wanted) => {
                let at = (0..indexes.len()).find(|at| digest(*at) == wanted.digest().to_string()).unwrap();
                search.add(&indexes[at])?;
            }
        }
    }
}

fn flat(platforms: &[&str]) -> [ImageIndex; 1] {
    let entries: Vec<Value> = platforms.iter().enumerate().map(|(at, platform)| entry(100 + at, platform)).collect();
    [index(&entries)]
}

fn wish(platform: &str) -> Selection {
    Selection { platform: Some(platform.parse().unwrap()), prefer: Prefer::default() }
}

#[test]
fn platforms_are_normalized() {
    let table = [
        ("linux/amd64", "linux/amd64"),
        ("Linux/X86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/V3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("macOS/arm64", "darwin/arm64"),
        ("WASI/Wasm32", "wasi/wasm"),
        ("wasm32/wasi", "wasi/wasm"),
        ("wasm/wasip2", "wasip2/wasm"),
        ("wasm", "wasi/wasm"),
        ("WASM32", "wasi/wasm"),
        ("wasip1", "wasip1/wasm"),
        ("wasip1/wasm", "wasip1/wasm"),
        ("linux/WASM", "linux/wasm"),
    ];
    for (typed, normal) in table {
        assert_eq!(typed.parse::<Platform>().unwrap().to_string(), normal, "{typed}");
    }
    for wrong in ["", "linux", "linux/", "/amd64", "linux/amd64/", "a/b/c/d", "linux amd64/x", "linux/ü"] {
        assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
    }
    for (platform, wasm) in [("wasi/wasm", true), ("wasip2/wasm32", true), ("linux/wasm", true), ("wasi/amd64", false)]
    {
        assert_eq!(platform.parse::<Platform>().unwrap().is_wasm(), wasm, "{platform}");
    }
}

#[test]
fn the_hosts_linux_then_wasm_or_the_other_way_round() {
    let host = Platform::host().to_string();
    let host = host.as_str();
    let table: [(&[&str], Option<usize>, Option<usize>); 9] = [
        (&["windows/amd64", host, "wasi/wasm"], Some(1), Some(2)),
        (&["wasip1/wasm", host], Some(1), Some(0)),
        (&["linux/s390x", "wasip2/wasm", "wasip1/wasm"], Some(1), Some(1)),
        (&["linux/wasm", host], Some(1), Some(0)),
        (&["linux/s390x", host, host], Some(1), Some(1)),
        (&["unknown/unknown", "attestation", host], Some(2), Some(2)),
        (&["linux/s390x"], None, None),
        (&[""], Some(0), Some(0)),
        (&["", host], Some(1), Some(1)),
    ];
    for (platforms, linux_first, wasm_first) in table {
        for (prefer, expected) in [(Prefer::Linux, linux_first), (Prefer::Wasm, wasm_first)] {
            let selection = Selection { platform: None, prefer };
            let found = search(&selection, &flat(platforms)).ok();
            assert_eq!(found, expected.map(|at| digest(100 + at)), "{platforms:?} {prefer:?}");
        }
    }
}

#[test]
fn a_platform_that_was_asked_for() {
    let all = [
        "linux/amd64",
        "linux/arm64/v8",
        "linux/arm/v6",
        "linux/arm/v7",
        "wasip1/wasm",
        "linux/amd64/v3",
        "wasip2/wasm",
    ];
    let table = [
        ("linux/amd64", Some(0)),
        ("linux/x86_64/v1", Some(0)),
        ("linux/amd64/v2", Some(0)),
        ("linux/amd64/v4", Some(5)),
        ("linux/arm64", Some(1)),
        ("linux/arm64/v8", Some(1)),
        ("linux/arm64/v9", Some(1)),
        ("linux/arm", Some(3)),
        ("linux/arm/v6", Some(2)),
        ("linux/arm/v5", None),
        ("wasi/wasm", Some(4)),
        ("wasip2/wasm", Some(6)),
        ("linux/wasm", None),
        ("windows/amd64", None),
    ];
    for (wanted, expected) in table {
        let found = search(&wish(wanted), &flat(&all)).ok();
        assert_eq!(found, expected.map(|at| digest(100 + at)), "{wanted}");
    }
    assert!(search(&wish("linux/amd64"), &flat(&[""])).is_err(), "no platform is not the wanted one");
    assert_eq!(search(&wish("wasip1/wasm"), &flat(&["wasi/wasm"])).unwrap(), digest(100));
}

#[test]
fn if_nothing_fits_the_error_says_what_there_is() {
    let error =
        search(&wish("linux/riscv64"), &flat(&["linux/amd64", "linux/arm64/v8", "linux/amd64", "attestation", ""]));
    let message = error.unwrap_err().to_string();
    assert_eq!(message, "nothing for linux/riscv64; there is: linux/amd64, linux/arm64, a manifest without a platform");
    assert_eq!(
        search(&Selection::default(), &flat(&["attestation"])).unwrap_err().to_string().split("; ").last(),
        Some("there is: nothing")
    );
}

#[test]
fn indexes_within_indexes() {
    let chain = |length: usize| -> Vec<ImageIndex> {
        let mut all: Vec<ImageIndex> = (1..length).map(|next| index(&[nested(next)])).collect();
        all.push(index(&[entry(100, "linux/arm64")]));
        all
    };
    assert_eq!(search(&wish("linux/arm64"), &chain(4)).unwrap(), digest(100));
    assert_eq!(search(&wish("linux/arm64"), &chain(5)).unwrap_err(), SelectError::TooDeep { digest: digest(4) });
    let outer_is_enough = [index(&[nested(1), entry(100, "linux/arm64")])];
    assert_eq!(search(&wish("linux/arm64"), &outer_is_enough).unwrap(), digest(100), "the nested one is not asked for");
    let better_within = [index(&[entry(100, "linux/arm/v6"), nested(1)]), index(&[entry(101, "linux/arm/v7")])];
    assert_eq!(search(&wish("linux/arm"), &better_within).unwrap(), digest(101));
}

#[test]
fn indexes_that_do_not_end() {
    let itself = [index(&[nested(0)])];
    assert_eq!(search(&wish("linux/arm64"), &itself).unwrap_err(), SelectError::Cycle { digest: digest(0) });
    let each_other = [index(&[nested(1)]), index(&[nested(0)])];
    assert_eq!(search(&wish("linux/arm64"), &each_other).unwrap_err(), SelectError::Cycle { digest: digest(0) });
    let children: Vec<Value> = (1..=MAX_INDEXES).map(nested).collect();
    let mut wide = vec![index(&children)];
    wide.extend((0..MAX_INDEXES).map(|_| index(&[])));
    assert_eq!(search(&wish("linux/arm64"), &wide).unwrap_err(), SelectError::TooMany);
}

#[test]
fn a_single_manifest_is_checked_against_the_wish() {
    let platform = |text: &str| text.parse::<Platform>().unwrap();
    assert!(Selection::default().check(&platform("plan9/mips")).is_ok());
    assert!(wish("linux/arm64").check(&platform("linux/arm64/v8")).is_ok());
    let message = wish("linux/arm64").check(&platform("linux/amd64")).unwrap_err().to_string();
    assert_eq!(message, "nothing for linux/arm64; there is: linux/amd64");
}
