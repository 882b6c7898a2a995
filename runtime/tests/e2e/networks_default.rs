//! The network that a container is on of which nothing was said, and what is said of what keeps it from there.

use std::{net::TcpListener, process::Command};

use crate::{
    networks::{address, alone, get_soon, no_devices, serve},
    sandbox::{Sandbox, binary, fixture},
    session::{Ended, Session},
};

/// A command for which `AMPHORA_NETWORK` is this.
fn with_default(sandbox: &Sandbox, network: Option<&str>, arguments: &[&str]) -> Ended {
    let mut command = sandbox.command(arguments);
    match network {
        Some(network) => command.env("AMPHORA_NETWORK", network),
        None => command.env_remove("AMPHORA_NETWORK"),
    };
    Session::start(command).wait()
}

#[test]
fn a_linux_image_is_on_the_default_network_and_a_wasm_image_on_none() {
    alone(|sandbox, busybox| {
        let show = ["run", "--rm", busybox, "ip", "-4", "-o", "addr"];
        for (network, has_one) in [(None, true), (Some(""), true), (Some("bridge"), true), (Some("none"), false)] {
            let shown = with_default(sandbox, network, &show);
            assert_eq!((shown.code, shown.stdout.contains("eth0")), (Some(0), has_one), "{network:?}: {shown}");
        }
        let refused = with_default(sandbox, Some("host"), &show);
        assert!(refused.code == Some(125) && refused.stderr.contains("AMPHORA_NETWORK=host"), "{refused}");
        let none = ["run", "--rm", "--network", "none", busybox, "ip", "-4", "-o", "addr"];
        assert!(!with_default(sandbox, None, &none).stdout.contains("eth0"));
        let program = fixture("programs/wasm/hello.wasm").expect("beside the other programs");
        sandbox.ok(["import", program.to_str().expect("UTF-8"), "hello:1"]);
        for network in [None, Some("bridge")] {
            assert_eq!(with_default(sandbox, network, &["run", "--name", "hello", "hello:1"]).code, Some(0));
            assert_eq!(sandbox.inspect("hello", ".HostConfig.NetworkMode"), "none");
            sandbox.ok(["rm", "hello"]);
        }
        // By a network's id it is on that network, too.
        let id = sandbox.ok(["network", "create", "front"]);
        serve(sandbox, busybox, "web", &["--network", &id[..12]]);
        assert!(address(sandbox, "web", "front").starts_with("10."));
        sandbox.ok(["rm", "-f", "web"]);
        no_devices();
        sandbox.check_clean();
    });
}

/// Both had one subnet, and for a while one device: who came second did not start, or was reached in the other's place.
#[test]
fn two_roots_have_default_networks_of_their_own() {
    // Where the registry can be reached.
    let Some((other, [_])) = Sandbox::with(["busybox:latest"]) else { return };
    alone(|sandbox, busybox| {
        serve(sandbox, busybox, "web", &["--network", "bridge"]);
        sandbox.ok(["rm", "-f", "web"]);
        // As a restart of the machine does.
        let id = sandbox.ok(["network", "inspect", "bridge", "-f", "{{.Id}}"]);
        let bridge = format!("am-{}", &id[..12]);
        assert!(linux_exec::network::Links::open().expect("links").delete(&bridge).expect("a device"));
        let of = [&other, sandbox];
        let addresses = of.map(|of| {
            serve(of, busybox, "web", &["--network", "bridge"]);
            address(of, "web", "bridge")
        });
        let subnets = addresses.each_ref().map(|address| address.rsplit_once('.').expect("an address").0);
        assert!(subnets[0] != subnets[1] && subnets[0].starts_with("10.90."), "{addresses:?}");
        for of in of {
            let name = of.inspect("web", ".Config.Hostname");
            let reached = get_soon(&format!("{}:80", address(of, "web", "bridge")));
            assert_eq!(reached, name);
            of.ok(["rm", "-f", "web"]);
        }
        no_devices();
        sandbox.check_clean();
        other.check_clean();
    });
}

/// Nothing runs without a network because there could be none: it is said what is missing, and what does without.
#[test]
fn where_there_can_be_no_network_the_flag_is_named_that_does_without() {
    alone(|sandbox, busybox| {
        let without = |flags: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]).arg(binary());
            command.arg("--root").arg(sandbox.root()).arg("--runroot").arg(sandbox.runroot());
            command.args(["run", "--rm"]).args(flags).args([busybox, "true"]).env_remove("AMPHORA_NETWORK");
            Session::start(command).wait()
        };
        if without(&["--network", "none"]).code != Some(0) {
            return println!("skipped: setpriv cannot take CAP_NET_ADMIN away here");
        }
        let said = without(&[]);
        assert_eq!(said.code, Some(125), "{said}");
        assert!(said.stderr.contains("--network none runs it without one"), "{said}");
        assert!(said.stderr.contains("CAP_NET_ADMIN"), "{said}");
        assert_eq!(sandbox.ok(["ps", "-aq"]), "");
        sandbox.check_clean();
    });
}

#[test]
fn who_has_a_port_is_named() {
    alone(|sandbox, busybox| {
        let listener = TcpListener::bind("198.51.100.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let publish = |place: &str| {
            let flag = format!("{place}{port}:80");
            sandbox.run(["run", "-d", "--name", "web", "-p", &flag, busybox, "sleep", "1000"])
        };
        let said = publish("");
        let by = format!("port is already allocated, by process {} (", std::process::id());
        assert!(said.code == Some(125) && said.stderr.contains(&by), "{said}");
        sandbox.ok(["rm", "web"]);
        // At another address it is free.
        assert_eq!(publish("127.0.0.1:").code, Some(0));
        drop(listener);
        let flag = format!("127.0.0.1:{port}:81");
        let said = sandbox.fails(125, ["run", "--rm", "-p", &flag, busybox, "true"]);
        assert!(said.contains("by container web"), "{said}");
        sandbox.ok(["rm", "-f", "web"]);
    });
}
