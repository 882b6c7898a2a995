//! Records of networks that are damaged, and devices that are not what their name says.

use std::{fs, process::Command};

use linux_exec::network::Links;

use crate::networks::{address, alone, exec, serve};

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
        sandbox.ok(["system", "prune", "-f"]);
        assert!(!record.exists());
        sandbox.check_clean();
        sandbox.ok(["network", "rm", "front"]);
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
