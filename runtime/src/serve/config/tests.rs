use std::path::Path;

use serde_json::Value;

use super::*;

const SMALL: &str = "[functions.web]\nimage = \"web\"\n[[routes]]\nfunction = \"web\"\n";

fn mistake(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn what_is_left_out_has_a_meaning() {
    let config = Config::parse(SMALL).unwrap();
    let web = &config.functions[&Name::new("web")];
    assert_eq!((web.port, web.min, web.max, web.concurrency), (8080, 0, 4, None));
    assert_eq!(config.listen, [Listen::loopback(8080)]);
    assert_eq!((config.limits.head, config.limits.body), (Bytes(65536), Bytes(128 << 20)));
    let route = config.routes[0].get_ref();
    assert!(route.strips() && route.path.0.is_empty() && route.host.is_none());
}

#[test]
fn a_whole_file_is_understood() {
    let text = r#"
        name = "edge"
        listen = ["127.0.0.1:0", "[::1]:8443"]
        admin = "./admin.sock"
        access_log = "off"
        trust_forwarded = true
        drain = 5
        [limits]
        head = "16k"
        body = 1024
        idle_timeout = "never"
        [functions.photos]
        image = "localhost:5000/photos:1"
        env = { SIZE = "3" }
        volumes = ["./data:/data:ro", "cache:/cache"]
        tmpfs = ["/run:size=1m"]
        memory = "64m"
        cpus = 0.5
        pids = 20
        concurrency = 3
        freeze_after = "250ms"
        [[routes]]
        host = "*.Example.com"
        path = "/users/{id}/photo/"
        exact = true
        methods = ["GET", "HEAD"]
        function = "photos"
    "#;
    let mut config = Config::parse(text).unwrap();
    config.resolve_paths(Path::new("/etc/amphora")).unwrap();
    assert_eq!(config.admin, Admin::Socket("/etc/amphora/./admin.sock".into()));
    let photos = &config.functions[&Name::new("photos")];
    assert_eq!((photos.memory, photos.cpus, photos.pids), (Memory(Some(64 << 20)), Cpus(Some(500)), Pids(Some(20))));
    assert_eq!((photos.freeze_after, config.drain), (Millis(250), Millis(5000)));
    assert!(format!("{:?}", photos.volumes[0].spec.kind).contains("/etc/amphora/data"), "{:?}", photos.volumes);
    let route = config.routes[0].get_ref();
    assert_eq!(route.path.shape(), "/users/{}/photo");
    assert_eq!(route.host, Some(HostPattern::Below(".example.com".into())));
    assert!(!route.strips());
}

#[test]
fn what_is_wrong_is_found_where_it_is() {
    for (text, expected) in [
        ("listne = []", "line 1, column 1: there is no key `listne`; did you mean `listen`?"),
        (
            "[functions.web]\nimage = \"web\"\n  memry = 1",
            "line 3, column 3: there is no key `memry`; did you mean `memory`?",
        ),
        (
            "[functions.web]\nimage = \"web\"\npull = \"mising\"",
            "line 3, column 8: there is no value `mising`; did you mean `missing`?",
        ),
        (
            "[functions.web]\nimage = \"web\"\nmemory = \"1k\"",
            "line 3, column 10: invalid value `1k` for --memory: the minimum is 6m",
        ),
        (
            "[functions.web]\nimage = \"web\"\nwatch = \"10ms\"",
            "line 3, column 9: watch: it is looked once a second at most; give at least 1s",
        ),
        ("admin = \"here\"", "`here`: expected `off`, IP:PORT such as 127.0.0.1:8081, or the path"),
        (
            "[functions.web]\nimage = \"web\"\ntimeout = \"soon\"",
            "line 3, column 11: invalid value `soon`: expected a duration",
        ),
        ("listen = [\"here\"]", "line 1, column 10: `here` is no address: expected IP:PORT"),
        (
            "[[routes]]\nfunction = \"web\"\npath = \"api\"",
            "line 3, column 8: the path `api` cannot be used: a path begins with a slash",
        ),
        ("[[routes]]\nfunction = \"web\"\npath = \"/a/../b\"", "cannot be used: a path has no `.` and `..`"),
        ("[[routes]]\nfunction = \"web\"\nmethods = [\"get\"]", "`get` is no method"),
        ("[[routes]]\nfunction = \"web\"\nhost = \"a:80\"", "`a:80` is no host"),
        ("listen = [", "line 1, column 11: "),
    ] {
        let mistake = mistake(text);
        assert!(mistake.contains(expected), "{text}: {mistake}");
    }
    let far = mistake(&SMALL.replace("function = \"web\"", "function = \"nothing-like-it\""));
    assert_eq!(far, "line 4, column 12: there is no function `nothing-like-it`; there are `web`");
    let weights = |weights: &str| mistake(&SMALL.replace("function = \"web\"", weights));
    for (text, expected) in [
        ("weights = { wab = 1 }", "line 4, column 11: there is no function `wab`; did you mean `web`?"),
        ("weights = { web = 0 }", "line 4, column 11: weights: no request would be answered"),
        ("weights = { web = 10001 }", "line 4, column 11: web = 10001: give weights up to 10000"),
        ("weights = { web = 1 }\nfunction = \"web\"", "function and weights: a route has one of them"),
        ("path = \"/\"", "line 3, column 1: missing field `function`"),
    ] {
        assert!(weights(text).contains(expected), "{text}: {}", weights(text));
    }
    let near = mistake(&SMALL.replace("function = \"web\"", "function = \"wab\""));
    assert_eq!(near, "line 4, column 12: there is no function `wab`; did you mean `web`?");
}

#[test]
fn what_no_value_can_tell_alone_is_refused() {
    for (further, expected) in [
        ("[functions.more]\nimage = \"x\"", "function `more`: no route leads to it"),
        (
            "[[routes]]\nfunction = \"web\"\npath = \"/\"",
            "line 5, column 1: route 2 is for the same requests as route 1: host *, path /",
        ),
        (
            "[[routes]]\nfunction = \"web\"\npath = \"/a\"\nexact = true\nstrip = true",
            "line 9, column 9: strip = true: of an exact path",
        ),
        ("[[routes]]\nfunction = \"web\"\npath = \"/a\"\nmethods = []", "methods = []: no request has none"),
    ] {
        let mistake = mistake(&format!("{SMALL}{further}"));
        assert!(mistake.contains(expected), "{further}: {mistake}");
    }
    for (line, expected) in [
        ("max = 0", "max = 0: no request could be answered"),
        ("min = 5", "min = 5 is above max = 4"),
        ("concurrency = 0", "concurrency = 0"),
        ("cgi = true\nmin = 1", "cgi = true: it is started for each request"),
        ("network = \"host\"", "network = \"host\": several containers"),
        ("env = { PORT = \"1\" }", "env: PORT is set to `port`"),
        ("env = { \"A=B\" = \"1\" }", "env: `A=B` is no name"),
    ] {
        let mistake = mistake(&SMALL.replace("[[routes]]", &format!("{line}\n[[routes]]")));
        assert!(mistake.starts_with("function `web`: ") && mistake.contains(expected), "{line}: {mistake}");
    }
    for (line, expected) in [
        ("endpoint = \"https://collector/\"", "traces.endpoint: `https://collector/`: expected http://IP:PORT/PATH"),
        ("endpoint = \"http://[::1]:4318/\"\nsample = 2", "traces.sample = 2: expected 0 to 1"),
    ] {
        let mistake = mistake(&format!("[traces]\n{line}\n{SMALL}"));
        assert!(mistake.contains(expected), "{line}: {mistake}");
    }
    // Parameters by other names are the same paths; other methods are not the same requests.
    let two = |first: &str, second: &str| {
        Config::parse(&format!(
            "{SMALL}[[routes]]\nfunction = \"web\"\n{first}\n[[routes]]\nfunction = \"web\"\n{second}"
        ))
    };
    assert!(two("path = \"/{a}\"", "path = \"/{b}/\"").is_err());
    assert!(two("path = \"/a\"\nmethods = [\"GET\"]", "path = \"/a\"\nmethods = [\"POST\"]").is_ok());
}

#[test]
fn what_only_a_start_takes_is_known() {
    let tls = "[tls]\nlisten = [\"127.0.0.1:0\"]\n[[tls.certificates]]\ncertificate = \"a\"\nkey = \"b\"\n";
    let key = |first: &str, second: &str| {
        let [first, second] = [first, second].map(|text| Config::parse(&format!("{text}\n{SMALL}")).unwrap());
        first.changes_for_a_start(&second).join(", ")
    };
    for (text, expected) in [
        ("name = \"other\"", "name"),
        ("listen = [\"127.0.0.1:1\"]", "listen"),
        ("admin = \"off\"", "admin"),
        ("access_log = \"off\"", "access_log"),
        ("drain = 1", "drain"),
        ("limits.connections = 1", "limits.connections"),
        ("admin_token = \"x\"", "admin_token"),
        ("traces = { endpoint = \"http://127.0.0.1:4318/\" }", "traces"),
        (tls, "tls, tls.listen"),
    ] {
        assert_eq!((key("", text).as_str(), key(text, text).as_str()), (expected, ""), "{text}");
    }
    assert_eq!(key(tls, &tls.replace("0.1:0", "0.1:1")), "tls.listen");
    assert_eq!(key(tls, &tls.replace("\"a\"", "\"c\"")), "");
    assert_eq!(key("", "trust_forwarded = true\nlimits.body = 1"), "");
    assert_eq!(key("", "drain = 1\nadmin = \"127.0.0.1:0\""), "admin, drain");
}

/// The schema is written by hand: it has the keys that there are, each with what it means.
#[test]
fn the_schema_knows_the_same_keys() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    for (text, at) in [
        ("nonsense = 1", "/properties"),
        ("[limits]\nnonsense = 1", "/properties/limits/properties"),
        ("[tls]\nnonsense = 1", "/properties/tls/properties"),
        ("[traces]\nnonsense = 1", "/properties/traces/properties"),
        ("[[tls.certificates]]\nnonsense = 1", "/properties/tls/properties/certificates/items/properties"),
        ("[functions.web]\nnonsense = 1", "/properties/functions/additionalProperties/properties"),
        ("[[routes]]\nnonsense = 1", "/properties/routes/items/properties"),
    ] {
        let error = toml::from_str::<Config>(text).unwrap_err();
        let mut known: Vec<&str> = error.message().split('`').skip(3).step_by(2).collect();
        known.sort_unstable();
        let mut described: Vec<&String> = schema.pointer(at).unwrap().as_object().unwrap().keys().collect();
        described.sort_unstable();
        assert_eq!(known, described, "{at}");
    }
}
