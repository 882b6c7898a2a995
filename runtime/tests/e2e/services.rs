//! Real services of a distribution, on a network of their own: nginx and Redis as Debian packs them.

use std::{fs, net::TcpStream, os::unix::fs::PermissionsExt};

use crate::{
    networks::{alone, exec, get_soon},
    sandbox::{Sandbox, fixture},
    session::until,
    wasm_networks::import_fetch,
};

const NGINX: &str = "daemon off; error_log stderr; events {}
http { access_log off; server { listen 80; listen [::]:80; location / { root /www; } } }";

/// What Redis says to a command, asked by a container.
fn redis(sandbox: &Sandbox, client: &str, command: &str) -> String {
    let ask = format!("exec 3<>/dev/tcp/store/6379; printf '{command}\\r\\n' >&3; head -n 1 <&3 | tr -d '\\r'");
    let ended = sandbox.run(["exec", client, "bash", "-c", &ask]);
    ended.stdout.trim_end().to_owned()
}

#[test]
fn nginx_and_redis_serve_on_a_network_and_keep_their_data() {
    let Some(tar) = fixture("services.tar") else { return };
    alone(|sandbox, busybox| {
        let image = "local/services:latest";
        sandbox.ok(["import", tar.to_str().expect("a path in UTF-8"), image]);
        sandbox.ok(["network", "create", "--ipv6", "shop"]);
        sandbox.file("nginx.conf", NGINX);
        sandbox.file("hostname", "from nginx\n");
        let work = sandbox.work();
        for name in ["nginx.conf", "hostname"] {
            fs::set_permissions(work.join(name), fs::Permissions::from_mode(0o644)).expect("a mode");
        }
        let (config, page) = (
            format!("{}/nginx.conf:/etc/nginx/nginx.conf:ro", work.display()),
            format!("{}/hostname:/www/hostname:ro", work.display()),
        );
        let web = ["run", "-d", "--name", "web", "--network", "shop", "-p", "8080:80", "-v", &config, "-v", &page];
        sandbox.ok(web.iter().copied().chain([image, "nginx"]));
        let store = ["run", "-d", "--name", "cache", "--network", "name=shop,alias=store", "-v", "data:/var/lib/redis"];
        let server = ["redis-server", "--dir", "/var/lib/redis", "--appendonly", "yes", "--appendfsync", "always"];
        let options = ["--protected-mode", "no"];
        let begin = || sandbox.ok(store.iter().copied().chain([image]).chain(server).chain(options));
        begin();
        // The host by both kinds of address, a program of each kind by name.
        for address in ["127.0.0.1:8080", "[::1]:8080", "198.51.100.1:8080", "[2001:db8::1]:8080"] {
            assert_eq!(get_soon(address), "from nginx", "{address}");
        }
        let fetch = import_fetch(sandbox);
        let said = sandbox.ok(["run", "--rm", "--network", "shop", &fetch]);
        assert!(said.contains("Server: nginx") && said.trim_end().ends_with("from nginx"), "{said}");
        sandbox.ok(["run", "-d", "--name", "client", "--network", "shop", busybox, "sleep", "1000"]);
        assert_eq!(exec(sandbox, "client", "wget -q -O - http://web/hostname").stdout, "from nginx\n");
        until("Redis to answer", || (redis(sandbox, "web", "PING") == "+PONG").then_some(()));
        assert_eq!(redis(sandbox, "web", "INCR visits"), ":1");
        assert_eq!(redis(sandbox, "web", "INCR visits"), ":2");
        // Its data outlives it, and its name leads to who comes next.
        sandbox.ok(["rm", "-f", "cache"]);
        begin();
        until("Redis to answer again", || (redis(sandbox, "web", "PING") == "+PONG").then_some(()));
        assert_eq!(redis(sandbox, "web", "INCR visits"), ":3");
        // Nothing of it is published.
        assert!(TcpStream::connect("127.0.0.1:6379").is_err());
        sandbox.ok(["stop", "web", "cache"]);
        assert_eq!(sandbox.inspect("web", ".State.ExitCode"), "0");
        assert_eq!(sandbox.inspect("cache", ".State.ExitCode"), "0");
        sandbox.ok(["rm", "-f", "web", "cache", "client"]);
        sandbox.ok(["volume", "rm", "data"]);
        sandbox.ok(["network", "rm", "shop"]);
        sandbox.check_clean();
    });
}
