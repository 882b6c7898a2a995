//! Registries that attack: each case ends with a sentence that names it, in bounded memory, and leaves nothing.

use super::*;
use nix::sys::{
    resource::{Resource, setrlimit},
    socket::{setsockopt, sockopt},
};
use std::{
    io::{self, Write},
    net::TcpStream,
    process::Command,
    sync::Arc,
};

const OK: &[u8] = b"HTTP/1.1 200 X\r\nConnection: close\r\n";
const APART: Duration = Duration::from_millis(20);

/// A registry that answers `reply` whenever a path has this part, and otherwise serves a usual image.
fn answering(part: &str, reply: Reply) -> Server {
    let part = part.to_owned();
    Server::start(Made::usual().files, move |asked| asked.path.contains(&part).then(|| reply.clone()))
}

/// A registry that wants a token, and a token server with this answer to whoever asks.
fn with_token_server(reply: Reply) -> Server {
    Server::start(Made::usual().files, move |asked| match asked.path.split('?').next() {
        Some("/token") => Some(reply.clone()),
        Some("/v2/") => None,
        _ => Some(challenge(&format!("http://{}/token", asked.headers["host"]))),
    })
}

fn challenge(realm: &str) -> Reply {
    Reply::new(401, b"").header("WWW-Authenticate", &format!(r#"Bearer realm="{realm}",service="s""#))
}

fn redirect(to: &str) -> Reply {
    Reply::new(307, b"").header("Location", to)
}

/// The same piece for ever.
fn endless(head: &'static [u8], piece: Vec<u8>) -> Reply {
    Reply::script(move |stream: &mut TcpStream| -> io::Result<()> {
        stream.write_all(head)?;
        loop {
            stream.write_all(&piece)?;
        }
    })
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What would take all memory if it were believed.
fn endless_answers() {
    let spaces = vec![b' '; 64 << 10];
    for reply in [endless(CHUNKED, chunk(&spaces)), endless(b"HTTP/1.1 200 X\r\n\r\n", spaces)] {
        let server = with_token_server(reply.clone());
        fails(&server, &app(&server), &["the token is larger than 262144 bytes"]);
        let server = answering("/manifests/", reply.clone());
        fails(&server, &app(&server), &["manifest latest is larger than 4194304 bytes"]);
        let layer = Made::usual().layers[0].clone();
        let server = answering(&layer, reply);
        fails(&server, &app(&server), &["layer sha256:"]);
    }
    let huge = Reply::drip(&[OK, b"Content-Length: 9999999999999\r\n\r\n", b" "], APART);
    let server = with_token_server(huge.clone());
    fails(&server, &app(&server), &["the token is larger"]);
    let server = answering("/manifests/", huge);
    fails(&server, &app(&server), &["manifest latest is larger"]);
    for piece in
        [[b"X-A: ".to_vec(), vec![b'a'; 10_000], b"\r\n".to_vec()].concat(), vec![b'a'; 10_000], b"A: a\r\n".to_vec()]
    {
        let server = answering("/manifests/", endless(OK, piece));
        fails(&server, &app(&server), &["the answer of", "message head is too large"]);
    }
    // Heads before the head, chunks without bytes' worth, their extensions, trailers.
    let server = answering("/manifests/", endless(b"", b"HTTP/1.1 103 X\r\n\r\n".repeat(100)));
    fails(&server, &app(&server), &["had not answered after 0.4 s"]);
    let server = answering("/manifests/", endless(CHUNKED, vec![b'0'; 100]));
    fails(&server, &app(&server), &["manifest latest"]);
    let server =
        answering("/manifests/", endless(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1;", vec![b'a'; 100]));
    fails(&server, &app(&server), &["manifest latest"]);
    let server = answering(
        "/manifests/",
        endless(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: a\r\n".repeat(1000)),
    );
    fails(&server, &app(&server), &["manifest latest"]);
    // Errors, too, are read no further than their words.
    for status in ["404", "401", "500"] {
        let head = format!("HTTP/1.1 {status} X\r\n\r\n");
        let body = vec![b'a'; 64 << 10];
        let server = answering(
            "/manifests/",
            Reply::script(move |stream| {
                stream.write_all(head.as_bytes())?;
                loop {
                    stream.write_all(&body)?;
                }
            }),
        );
        fails(&server, &app(&server), &[status]);
    }
}

/// Kilobytes that would be gigabytes if anybody inflated them unasked.
fn bombs() {
    let zeros = gzip(&vec![b' '; 10 << 20]);
    let coded = Reply::new(200, &zeros).header("Content-Encoding", "gzip");
    let server = answering("/manifests/", coded.clone());
    fails(&server, &app(&server), &["manifest latest", "Content-Encoding `gzip`"]);
    let server = with_token_server(coded);
    fails(&server, &app(&server), &["token server", "not a JSON object"]);
}

/// Indexes within an index, each with thousands of entries.
fn many_indexes() {
    let mut made = Made::default();
    let entries = |mark: usize| -> Value {
        let entry = |number: usize| {
            let digest = digest(format!("{mark} {number}").as_bytes());
            json!({ "mediaType": INDEX, "digest": digest, "size": 1000 })
        };
        (0..25_000).map(entry).collect()
    };
    let mut nested = Vec::new();
    for mark in 0..20 {
        let document = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries(mark) });
        nested.push(made.manifest("nested", &document));
    }
    made.manifest("latest", &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": nested }));
    let server = Server::start(made.files, |_| None);
    fails(&server, &app(&server), &["its indexes, manifests and config would need more than 67108864 bytes of memory"]);
}

/// All the cases above, in a process of their own that has 256 MiB for client and servers together.
#[test]
fn hostile_registries_get_no_more_than_256_mib_of_memory() {
    const INSIDE: &str = "AMPHORA_TEST_HOSTILE_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        setrlimit(Resource::RLIMIT_DATA, 256 << 20, 256 << 20).unwrap();
        endless_answers();
        bombs();
        many_indexes();
        return;
    }
    let name = "registry::tests::hostile::hostile_registries_get_no_more_than_256_mib_of_memory";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let run = command.args(["--exact", name, "--test-threads=1", "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let told = [run.stdout, run.stderr].concat();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn redirects_that_go_in_a_circle_are_told_as_such() {
    let server = answering("/manifests/", redirect("/v2/app/manifests/latest"));
    fails(&server, &app(&server), &["leads to", "/v2/app/manifests/latest", "in a circle"]);
    assert_eq!(server.count("/manifests/"), 1);
    let server = Server::start(HashMap::new(), |asked| match asked.path.as_str() {
        "/v2/" => None,
        "/a" => Some(redirect("/b")),
        _ => Some(redirect("/a")),
    });
    fails(&server, &app(&server), &["/b leads to http://", "where the request has been before", "in a circle"]);
    assert_eq!(server.count("/a"), 2, "the manifest's path has it too, and is asked once");
    let server = Server::start(HashMap::new(), |asked| {
        let number: u32 = asked.path.rsplit('/').next().unwrap().parse().unwrap_or(0);
        Some(redirect(&format!("/{}", number + 1)))
    });
    fails(&server, &app(&server), &["leads to", "/11", "one redirect more than 10"]);
}

#[test]
fn redirects_lead_only_where_they_may() {
    for (location, expected) in [
        ("file:///etc/shadow", "not the URL of a web server"),
        ("ftp://127.0.0.1/", "not the URL of a web server"),
        ("data:,x", "not the URL of a web server"),
        ("http://registry.example/x", "plain HTTP to another machine"),
        ("http://user:secret@127.0.0.1/", "a user or a password"),
        ("http://[", "no Location that is a URL"),
        ("", "in a circle"),
    ] {
        for part in ["/manifests/", "/blobs/"] {
            let server = answering(part, redirect(location));
            fails(&server, &app(&server), &[expected]);
        }
        let server = with_token_server(redirect(location));
        fails(&server, &app(&server), &[expected]);
    }
    let server = answering("/manifests/", Reply::new(302, b""));
    fails(&server, &app(&server), &["no Location"]);
}

#[test]
fn token_servers_are_asked_only_where_they_may_be() {
    for (realm, expected) in [
        ("file:///etc/shadow", "not the URL of a web server"),
        ("/token", "which is no URL"),
        ("http://registry.example/token", "plain HTTP to another machine"),
        ("http://user:secret@127.0.0.1/token", "a user or a password"),
    ] {
        let server = answering("/manifests/", challenge(realm));
        fails(&server, &app(&server), &["names", expected]);
    }
}

/// CVE-2020-15157, CVE-2024-45336: no other host is told what is meant for the registry, and none can ask for it.
#[test]
fn passwords_and_tokens_stay_with_the_registry() {
    let made = Made::usual();
    let layer = made.layer_path(0);
    let (thief, blob) = (Server::start(HashMap::new(), |_| Some(Reply::new(200, b"{}"))), made.files[&layer].clone());
    let thief_at = format!("http://127.0.0.1:{}/token", thief.port);
    for steals in [false, true] {
        let (blob, thief_at) = (blob.clone(), thief_at.clone());
        let storage = Server::start(HashMap::new(), move |_| {
            Some(if steals { challenge(&thief_at) } else { Reply::new(200, &blob) })
        });
        let (layer, storage_at) = (layer.clone(), format!("http://127.0.0.1:{}/blob", storage.port));
        let server = Server::start(made.files.clone(), move |asked| match asked.headers.get("authorization") {
            _ if asked.path.starts_with("/token") => Some(Reply::new(200, br#"{"token":"let-me-in"}"#)),
            None => Some(challenge(&format!("http://{}/token", asked.headers["host"]))),
            Some(_) => (asked.path == layer).then(|| redirect(&storage_at)),
        });
        let options = RegistryOptions { credentials: Some(("user".into(), "secret".into())), ..quick() };
        let pulled = Place::new().pull(&app(&server), &options);
        if steals {
            let error = pulled.unwrap_err().to_string();
            assert!(
                error.contains("/blob, where the registry leads for layer") && error.contains("answers 401"),
                "{error}"
            );
            assert!(!error.contains("secret") && !error.contains("let-me-in"), "{error}");
        } else {
            pulled.unwrap();
        }
        let asked = storage.asked.lock().unwrap();
        assert!(!asked.is_empty() && asked.iter().all(|asked| !asked.headers.contains_key("authorization")));
    }
    assert!(thief.asked.lock().unwrap().is_empty());
}

/// Nor does a token server hand the password on, not even by way of another host and back.
#[test]
fn a_redirected_token_server_takes_no_password_along() {
    let storage = Server::start(HashMap::new(), |asked| {
        let back = format!("http://{}/token-again", asked.headers["host"]);
        Some(if asked.path == "/token-again" { Reply::new(200, br#"{"token":"t"}"#) } else { redirect(&back) })
    });
    let storage_at = format!("http://127.0.0.1:{}/token", storage.port);
    let server = Server::start(Made::usual().files, move |asked| {
        if asked.path.starts_with("/token") {
            return Some(redirect(&storage_at));
        }
        let known = asked.headers.get("authorization").is_some_and(|header| header == "Bearer t");
        (!known).then(|| challenge(&format!("http://{}/token", asked.headers["host"])))
    });
    let options = RegistryOptions { credentials: Some(("user".into(), "secret".into())), ..quick() };
    Place::new().pull(&app(&server), &options).unwrap();
    let with_password = |server: &Server| {
        let asked = server.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.headers.get("authorization").is_some_and(|text| text.starts_with("Basic")))
            .count()
    };
    assert_eq!((with_password(&server), with_password(&storage)), (1, 0));
    assert_eq!(storage.count("/token"), 2);
}

#[test]
fn urls_in_a_manifest_are_not_asked() {
    let thief = Server::start(HashMap::new(), |_| None);
    let mut made = Made::default();
    let url = format!("http://127.0.0.1:{}/layer", thief.port);
    made.image("latest", &[&[("a", b"a")]], |_, manifest| manifest["layers"][0]["urls"] = json!([url]));
    let server = Server::start(made.files.clone(), |_| None);
    Place::new().pull(&app(&server), &quick()).unwrap();
    let layer = made.layer_path(0);
    let server = Server::start(made.files, move |asked| (asked.path == layer).then(|| Reply::new(404, b"")));
    fails(&server, &app(&server), &["404"]);
    assert!(thief.asked.lock().unwrap().is_empty());
}

#[test]
fn a_registry_that_refuses_its_own_token_is_asked_twice_and_no_more() {
    let server = with_token_server(Reply::new(200, br#"{"token":"t"}"#));
    fails(&server, &app(&server), &["401"]);
    assert_eq!((server.count("/manifests/"), server.count("/token")), (2, 1));
    let server = with_token_server(Reply::new(500, b"no"));
    fails(&server, &app(&server), &["/token?…, where the registry leads for a token, answers 500 (asked 4 times): no"]);
    assert_eq!(server.count("/token"), 4);
    for answer in [&b"secret"[..], br#"{"token":"\u0000secret"}"#, br#"{"token":5}"#] {
        let server = with_token_server(Reply::new(200, answer));
        fails(&server, &app(&server), &["the answer of the token server"]);
    }
}

#[test]
fn a_byte_now_and_then_is_too_slow() {
    let body: &[&[u8]] = &[OK, b"Content-Length: 500\r\n\r\n", b" "];
    let chunks: &[&[u8]] = &[CHUNKED, b"1\r\n \r\n"];
    let layer = Made::usual().layers[0].clone();
    for pieces in [body, chunks] {
        let slow = Reply::drip(pieces, APART);
        for (part, what) in [("/manifests/", "manifest latest"), (layer.as_str(), "layer sha256:")] {
            let server = answering(part, slow.clone());
            fails(
                &server,
                &app(&server),
                &["sent only", "bytes in 0.4 s", what, "where at least 409 bytes are expected"],
            );
        }
        let server = with_token_server(slow);
        fails(&server, &app(&server), &["sent only", "a token"]);
    }
    // A head that never ends, by lines and by letters, for whatever is asked.
    for pieces in [&[OK, &b"A: a\r\n"[..]], &[OK, &b"a"[..]]] {
        let slow = Reply::drip(pieces, APART);
        for part in ["/v2/", "/manifests/", layer.as_str()] {
            let server = answering(part, slow.clone());
            fails(&server, &app(&server), &["had not answered after 0.4 s"]);
        }
        let server = with_token_server(slow);
        fails(&server, &app(&server), &["had not answered", "/token?…", "a token"]);
    }
    // The words of an error are waited for no longer than anything else.
    let server = answering("/manifests/", Reply::drip(&[b"HTTP/1.1 404 X\r\n\r\n", b"a"], APART));
    fails(&server, &app(&server), &["404", ": aa"]);
}

#[test]
fn what_is_not_too_slow_is_bounded_in_all() {
    let fast_enough = Reply::drip(&[CHUNKED, b"1\r\n \r\n"], APART);
    let server = answering("/manifests/", fast_enough.clone());
    let with = |document, total| RegistryOptions {
        pace: Pace { least_rate: 1, document_time: Duration::from_millis(document), ..quick().pace },
        limits: Limits { time: Duration::from_millis(total), ..Limits::default() },
        ..quick()
    };
    for (options, expected) in
        [(with(300, 60_000), "manifest latest took longer than 0.3 s"), (with(60_000, 300), "it took more than")]
    {
        let error = Place::new().pull(&app(&server), &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let layer = Made::usual().layers[0].clone();
    let server = answering(&layer, fast_enough);
    let place = Place::new();
    let error = place.pull(&app(&server), &with(60_000, 500)).unwrap_err().to_string();
    assert!(error.contains("it took more than"), "{error}");
    assert_eq!(place.everything(), Vec::<String>::new());
}

/// Each of ten redirects had half a minute of its own.
#[test]
fn redirects_and_repetitions_count_to_the_time_of_a_document() {
    let pace = Pace { document_time: Duration::from_millis(300), ..quick().pace };
    let options = RegistryOptions { pace, ..quick() };
    let slow = |reply: Reply| Reply { pause: Duration::from_millis(100), ..reply };
    let hops = Server::start(HashMap::new(), move |asked| {
        let further = format!("{}x", asked.path);
        asked.path.contains("/manifests/").then(|| slow(Reply::new(307, b"").header("Location", &further)))
    });
    let cuts = Server::start(HashMap::new(), move |asked| {
        let cut = Reply { cut: Some(1), ..Reply::new(200, b"{}") };
        asked.path.contains("/manifests/").then(|| slow(cut))
    });
    for server in [hops, cuts] {
        let error = Place::new().pull(&app(&server), &options).unwrap_err().to_string();
        assert!(error.contains("manifest latest took longer than 0.3 s"), "{error}");
        assert!(server.count("/manifests/") <= 3, "{error}");
    }
}

#[test]
fn lengths_and_ranges_that_lie_are_found_out() {
    let made = Made::usual();
    let (path, bytes) = (made.layer_path(0), made.files[&made.layer_path(0)].clone());
    for (length, expected) in [(bytes.len() + 9, "broke 4 times"), (9, "broke 4 times")] {
        let (path, bytes) = (path.clone(), bytes.clone());
        let server = Server::start(made.files.clone(), move |asked| {
            let head = format!("HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            let part = bytes[..bytes.len().min(length) - 5].to_vec();
            let script = move |stream: &mut TcpStream| {
                stream.write_all(head.as_bytes())?;
                stream.write_all(&part)
            };
            (asked.path == path).then(|| Reply::script(script))
        });
        fails(&server, &app(&server), &[expected, "layer sha256:"]);
    }
    for head in ["Content-Length: -1", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: x"] {
        let pieces = [OK, head.as_bytes(), b"\r\n\r\n{}", b" "];
        let server = answering("/manifests/", Reply::drip(&pieces, APART));
        fails(&server, &app(&server), &["no HTTP that can be read"]);
    }
    for range in ["bytes 0-9/10", "", "items"] {
        let (path, bytes) = (path.clone(), bytes.clone());
        let server = Server::start(made.files.clone(), move |asked| {
            let cut = Reply { cut: Some(1000), ..Reply::new(200, &bytes) };
            let rest = Reply::new(206, &bytes).header("Content-Range", range);
            (asked.path == path).then_some(if asked.before == 0 { cut } else { rest })
        });
        fails(&server, &app(&server), &["its rest from byte 1000 was asked for", range]);
    }
    // A part that nobody asked for.
    let server = answering("/manifests/", Reply::new(206, b"{}"));
    fails(&server, &app(&server), &["206"]);
}

#[test]
fn kinds_that_contradict_each_other_are_refused() {
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST }).to_string();
    let server = answering("/manifests/", Reply::new(200, manifest.as_bytes()).header("Content-Type", INDEX));
    fails(&server, &app(&server), &["it says that it is", "the registry that it is"]);
    let server = answering("/manifests/", Reply::new(200, br#"{"schemaVersion":2,"mediaType":"text/html"}"#));
    fails(&server, &app(&server), &["it says that it is `text/html`; expected one of application/vnd.oci"]);
    let other = digest(b"other");
    let server = answering("/manifests/", Reply::new(200, b"{}").header("Docker-Content-Digest", &other));
    fails(&server, &app(&server), &["should have digest", &other]);
}

#[test]
fn a_connection_that_is_reset_is_taken_up_again() {
    let made = Made::usual();
    let (path, bytes) = (made.layer_path(0), Arc::new(made.files[&made.layer_path(0)].clone()));
    let server = Server::start(made.files, move |asked| {
        let bytes = Arc::clone(&bytes);
        let script = move |stream: &mut TcpStream| {
            write!(stream, "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
            stream.write_all(&bytes[..100_000])?;
            // Closed with data on its way: the client gets RST, and not an end.
            setsockopt(&*stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })
                .map_err(io::Error::from)
        };
        (asked.path == path && asked.before == 0).then(|| Reply::script(script))
    });
    let place = Place::new();
    let image = place.pull(&app(&server), &quick()).unwrap();
    assert_eq!(place.read(&image, "big").unwrap(), noise(300_000));
}

#[test]
fn a_manifest_that_says_nothing_of_its_kind_is_told_by_its_content() {
    let mut made = Made::default();
    let manifest = made.image("latest", &[&[("a", b"a")]], |_, manifest| drop(manifest["mediaType"].take()));
    let mut plain: Value = serde_json::from_slice(&made.files["/v2/app/manifests/latest"]).unwrap();
    plain.as_object_mut().unwrap().remove("mediaType");
    let entry = json!({ "mediaType": MANIFEST, "digest": manifest["digest"], "size": manifest["size"] });
    for (document, media_type) in [(plain, MANIFEST), (json!({ "schemaVersion": 2, "manifests": [entry] }), INDEX)] {
        let bytes = document.to_string().into_bytes();
        let server = Server::start(made.files.clone(), move |asked| {
            let answer = || Reply::new(200, &bytes).header("Content-Type", "text/plain");
            asked.path.ends_with("/manifests/latest").then(answer)
        });
        let place = Place::new();
        place.pull(&app(&server), &quick()).unwrap();
        let index = fs::read_to_string(place.folder.path().join("image-layout/index.json")).unwrap();
        assert!(index.contains(media_type) && !index.contains("text/plain"), "{index}");
    }
}

/// A port of something else.
#[test]
fn what_speaks_no_http_is_named() {
    let server = answering("/", Reply::script(|stream| stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n")));
    fails(&server, &app(&server), &["127.0.0.1"]);
    let server = answering("/manifests/", Reply::script(|stream| stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n")));
    fails(&server, &app(&server), &["no HTTP that can be read", "is this the port of a registry?"]);
}
