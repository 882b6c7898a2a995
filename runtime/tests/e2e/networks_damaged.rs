//! Records of networks that are damaged, and devices that are not what their name says.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    process::Command,
};

use linux_exec::network::{Links, Veth, namespace::make_elsewhere};

use crate::{
    networks::{address, alone, exec, get, serve},
    session::until,
};

/// A device is known by more than its name: one of another ROOT's would join its containers with ours.
#[test]
fn a_bridge_of_somebody_elses_is_neither_used_nor_removed() {
    alone(|sandbox, busybox| {
        let bridge = format!("am-{}", &sandbox.ok(["network", "create", "front"])[..12]);
        let links = Links::open().unwrap();
        assert!(links.add_bridge(&bridge, [2, 0, 0, 0, 0, 1], 1500).unwrap());
        let said = sandbox.fails(125, ["run", "--rm", "--network", "front", busybox, "true"]);
        assert!(said.contains(&format!("the network device {bridge} is not of network front")), "{said}");
        sandbox.ok(["network", "rm", "front"]);
        assert!(links.delete(&bridge).unwrap());
        sandbox.check_clean();
    });
}

/// One record that cannot be read fails nothing but itself; who runs is told apart from who has ended.
#[test]
fn a_damaged_record_of_an_address_is_named_and_goes_with_its_container() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        serve(sandbox, busybox, "web", &["--network", "front"]);
        serve(sandbox, busybox, "other", &["--network", "front"]);
        let record = sandbox.root().join("networks/front/addresses").join(address(sandbox, "web", "front"));
        fs::write(&record, "{").expect("the record");
        let listed = sandbox.run(["ps", "-q"]);
        assert!(listed.code == Some(0) && listed.stdout.lines().count() == 2, "{listed}");
        assert!(listed.stderr.contains("addresses/") && listed.stderr.contains("damaged"), "{listed}");
        let asked = exec(sandbox, "other", "nslookup web; nslookup other");
        assert!(asked.stdout.contains("can't find web: SERVFAIL") && asked.stdout.contains("Name:\tother"), "{asked}");
        sandbox.ok(["run", "--rm", "--network", "front", busybox, "true"]);
        let said = sandbox.run(["system", "check"]);
        assert!(said.code == Some(1) && said.stdout.contains("of a container that runs"), "{said}");
        sandbox.ok(["rm", "-f", "other"]);
        assert!(sandbox.fails(1, ["network", "rm", "front"]).contains("whose record cannot be read"));
        sandbox.run(["rm", "-f", "web"]);
        let said = sandbox.run(["system", "check"]);
        assert!(said.code == Some(1) && said.stdout.contains("of a container that has ended"), "{said}");
        // With the network, on which nobody is.
        sandbox.ok(["system", "prune", "-f"]);
        assert!(!record.exists());
        sandbox.check_clean();
    });
}

/// What somebody else does to devices and to the machine is named, and mended while containers run.
#[test]
fn devices_that_somebody_switched_off_are_named_and_mended() {
    alone(|sandbox, busybox| {
        let bridge = format!("am-{}", &sandbox.ok(["network", "create", "front"])[..12]);
        serve(sandbox, busybox, "web", &["--network", "front"]);
        serve(sandbox, busybox, "other", &["--network", "front"]);
        let links = Links::open().expect("links");
        let index = links.find(&bridge).expect("links").expect("the bridge").index;
        let port =
            links.list().expect("links").into_iter().find(|link| link.master == Some(index)).expect("a port").name;
        let ip = |words: &[&str]| {
            let done = Command::new("busybox").arg("ip").args(words).status().expect("busybox-static is installed");
            assert!(done.success(), "{words:?}");
        };
        let down = |device: &str| ip(&["link", "set", device, "down"]);
        let harms: [(&dyn Fn(), &str); 4] = [
            (&|| down(&bridge), "which is switched off"),
            (&|| ip(&["addr", "flush", "dev", &bridge]), "without its address"),
            (&|| down(&port), "that is switched off"),
            (&|| fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("a sysctl"), "without net.ipv4.ip_forward"),
        ];
        for (harm, sentence) in harms {
            harm();
            let said = sandbox.run(["system", "check"]);
            assert!(said.code == Some(1) && said.stdout.contains(sentence), "{sentence}: {said}");
            sandbox.ok(["system", "repair"]);
            sandbox.check_clean();
        }
        assert_eq!(exec(sandbox, "other", "wget -q -O - http://web/hostname").code, Some(0));
        assert!(links.delete(&port).expect("links"));
        let said = sandbox.run(["system", "check"]);
        assert!(said.code == Some(1) && said.stdout.contains("amphora restart"), "{said}");
        sandbox.ok(["rm", "-f", "web", "other"]);
        sandbox.check_clean();
        sandbox.ok(["network", "rm", "front"]);
    });
}

/// It can be removed as any other, by its name, with its bridge where that is still known.
#[test]
fn a_network_whose_record_is_damaged_can_be_removed() {
    alone(|sandbox, busybox| {
        for name in ["whole", "front", "back"] {
            sandbox.ok(["network", "create", name]);
        }
        sandbox.ok(["run", "--rm", "--network", "front", busybox, "true"]);
        let record = |name: &str| sandbox.root().join(format!("networks/{name}/network.json"));
        let text = fs::read_to_string(record("front")).expect("a record").replace("\"format\":1", "\"format\":\"x\"");
        let bridge = format!("am-{}", &sandbox.ok(["network", "inspect", "-f", "{{.Id}}", "front"])[..12]);
        serve(sandbox, busybox, "web", &["--network", "back"]);
        fs::write(record("front"), text).expect("the record");
        fs::write(record("back"), "{").expect("the record");
        assert!(sandbox.fails(1, ["network", "inspect", "front"]).contains("network.json"));
        assert!(sandbox.fails(1, ["network", "inspect", "nothing"]).contains("network nothing not found"));
        let listed = sandbox.run(["network", "ls", "--format", "{{.Name}}"]);
        assert!(listed.stdout.contains("whole") && listed.stderr.contains("network back"), "{listed}");
        assert!(sandbox.fails(1, ["network", "rm", "back"]).contains("active endpoints"));
        sandbox.ok(["rm", "-f", "web"]);
        sandbox.ok(["network", "rm", "front", "back"]);
        assert!(Links::open().and_then(|links| links.find(&bridge)).expect("a list of devices").is_none());
        sandbox.ok(["run", "--rm", "--network", "whole", busybox, "true"]);
        sandbox.ok(["network", "rm", "whole"]);
        sandbox.check_clean();
    });
}

/// Its rules come with its bridge, and so with the first container.
#[test]
fn a_network_that_no_container_was_on_yet_is_no_damage() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        serve(sandbox, busybox, "web", &["--network", "front"]);
        sandbox.ok(["network", "create", "back"]);
        sandbox.check_clean();
        sandbox.ok(["network", "rm", "back"]);
        sandbox.check_clean();
        sandbox.ok(["rm", "-f", "web"]);
    });
}

/// A neighbour that sends what is for 127.0.0.1 to this machine (CVE-2020-8558 is of this kind).
#[test]
fn a_port_of_the_loopback_is_closed_to_neighbours() {
    alone(|sandbox, busybox| {
        serve(sandbox, busybox, "web", &["-p", "127.0.0.1:8089:80", "-p", "8090:80"]);
        let links = Links::open().expect("links");
        let uplink = links.find("uplink").expect("links").expect("the way out").index;
        let (inside, ()) = make_elsewhere(|| Ok::<_, linux_exec::Error>(())).expect("a network namespace");
        let veth = Veth {
            name: "neighbour",
            bridge: uplink,
            peer: "eth0",
            peer_mac: [2, 0, 0, 0, 0, 7],
            namespace: inside.as_fd(),
            mtu: 1500,
        };
        assert!(links.add_veth(&veth).expect("a device"));
        let namespace = format!("--net=/proc/{}/fd/{}", std::process::id(), inside.as_raw_fd());
        let ask = |script: &str| {
            let output = Command::new("busybox").args(["nsenter", &namespace, "sh", "-c", script]).output();
            String::from_utf8(output.expect("busybox-static is installed").stdout).expect("text")
        };
        ask("ip link set lo down; ip addr add 198.51.100.2/24 dev eth0; ip link set eth0 up; \
             echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; echo 0 > /proc/sys/net/ipv4/conf/eth0/rp_filter; \
             ip route flush table local type local 127.0.0.0/8; ip route add 127.0.0.0/8 via 198.51.100.1");
        let own = until("the server", || get("127.0.0.1:8089").ok().filter(|text| !text.is_empty()));
        let get = |url: &str| ask(&format!("timeout 2 wget -q -O - http://{url}/hostname"));
        assert_eq!(get("198.51.100.1:8090").trim(), own, "the way there");
        for address in ["127.0.0.1:8089", "127.0.0.2:8089", "127.0.0.1:8090"] {
            assert_eq!(get(address), "", "{address}");
        }
        sandbox.ok(["rm", "-f", "web"]);
        sandbox.check_clean();
    });
}
