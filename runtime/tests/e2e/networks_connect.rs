//! Containers that are connected to networks and disconnected, while they run and before; and what is killed in between.

use std::{fs, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    networks::{address, alone, devices, elements, exec, get, get_soon, no_devices, reaches, serve},
    sandbox::Sandbox,
    session::until,
};

fn supervisor(sandbox: &Sandbox, container: &str) -> Pid {
    let id = sandbox.inspect(container, ".Id");
    let record = fs::read_to_string(sandbox.runroot().join(format!("running/{id}.json"))).expect("a record");
    let record: serde_json::Value = serde_json::from_str(record.lines().next().expect("a line")).expect("JSON");
    Pid::from_raw(i32::try_from(record["supervisor_pid"].as_i64().expect("a pid")).expect("a pid"))
}

fn networks(sandbox: &Sandbox, container: &str) -> String {
    sandbox.ok(["inspect", "-f", "{{range $name, $one := .NetworkSettings.Networks}}{{$name}} {{end}}", container])
}

#[test]
fn a_running_container_goes_to_another_network_and_leaves_it() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        sandbox.ok(["network", "create", "--ipv6", "--subnet", "10.66.0.0/24", "back"]);
        serve(sandbox, busybox, "web", &["--network", "front"]);
        serve(sandbox, busybox, "db", &["--network", "back"]);
        let said = sandbox.ok(["network", "connect", "--alias", "www", "--ip", "10.66.0.9", "back", "web"]);
        assert_eq!((said.as_str(), address(sandbox, "web", "back").as_str()), ("", "10.66.0.9"));
        for (from, name) in [("db", "web"), ("db", "www"), ("web", "db"), ("web", "db.back")] {
            let found = exec(sandbox, from, &format!("wget -q -O - http://{name}/hostname"));
            assert!(found.code == Some(0) && !found.stdout.is_empty(), "{name} from {from}: {found}");
        }
        let hosts = exec(sandbox, "web", "cat /etc/hosts; ip -6 -o addr show eth1").stdout;
        assert!(hosts.contains("10.66.0.9\t") && hosts.contains("inet6 fd"), "{hosts}");
        assert_eq!(networks(sandbox, "web").trim(), "back front");
        assert!(sandbox.ok(["network", "inspect", "-f", "{{json .Containers}}", "back"]).contains("10.66.0.9/24"));
        for (arguments, said) in [
            (&["connect", "back", "web"][..], "endpoint with name web already exists in network back"),
            (&["connect", "nothing", "web"], "network nothing not found"),
            (&["connect", "back", "nobody"], "no such container: nobody"),
            (&["connect", "host", "web"], "cannot be connected to network host"),
            (&["connect", "--alias", "a", "bridge", "web"], "only for containers in user defined networks"),
            (&["connect", "--ip", "10.99.0.9", "bridge", "web"], "no configured subnet contains IP address 10.99.0.9"),
            (&["disconnect", "nothing", "web"], "container web is not connected to network nothing"),
        ] {
            let found = sandbox.fails(1, ["network"].iter().chain(arguments).copied());
            assert!(found.contains(said), "{arguments:?}: {found}");
        }
        let linked = sandbox.fails(125, ["network", "connect", "--link", "db", "back", "web"]);
        assert!(linked.contains("not supported yet: the flag `--link`"), "{linked}");
        // It is written down: so it is there after the next start.
        sandbox.ok(["restart", "-t", "0", "web"]);
        assert_eq!(address(sandbox, "web", "back"), "10.66.0.9");
        assert_eq!((devices(), elements("members4")), (3, 3));
        sandbox.ok(["network", "disconnect", "back", "web"]);
        assert!(!exec(sandbox, "web", "cat /etc/hosts; ip -o addr").stdout.contains("10.66.0.9"));
        assert_ne!(exec(sandbox, "web", "nslookup db 127.0.0.11").code, Some(0));
        assert!(!reaches(sandbox, "web", &format!("{}:80", address(sandbox, "db", "back"))));
        assert_eq!((devices(), elements("members4"), networks(sandbox, "web").trim()), (2, 2, "front"));
        // Its address is free at once.
        sandbox.ok(["run", "--rm", "--network", "back", "--ip", "10.66.0.9", busybox, "true"]);
        sandbox.check_clean();
        sandbox.ok(["rm", "-f", "web", "db"]);
        sandbox.ok(["network", "rm", "front", "back"]);
        no_devices();
    });
}

#[test]
fn ports_names_and_the_way_out_go_with_the_first_network_that_is_left() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "back"]);
        serve(sandbox, busybox, "web", &["-p", "8080:80", "-p", "127.0.0.1:5300:53/udp"]);
        serve(sandbox, busybox, "db", &["--network", "back"]);
        let hostname = get_soon("127.0.0.1:8080");
        assert!(!exec(sandbox, "web", "cat /etc/resolv.conf").stdout.contains("127.0.0.11"));
        sandbox.ok(["network", "connect", "back", "web"]);
        let found = exec(sandbox, "web", "cat /etc/resolv.conf; wget -q -O - http://db/hostname");
        assert!(found.code == Some(0) && found.stdout.contains("127.0.0.11"), "{found}");
        sandbox.ok(["network", "disconnect", "bridge", "web"]);
        for address in ["127.0.0.1:8080", "[::1]:8080", "[2001:db8::1]:8080"] {
            assert_eq!(get(address).expect("an answer"), hostname, "{address}");
        }
        let ports = "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n53/udp -> 127.0.0.1:5300\n";
        assert_eq!(sandbox.ok(["port", "web"]), ports);
        let gateway = sandbox.ok(["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", "back"]);
        let route = exec(sandbox, "web", "ip route show default").stdout;
        assert!(route.contains(&format!("default via {} ", gateway.trim())), "{route}");
        // By its own published port, which takes frames back to where they come from.
        assert!(reaches(sandbox, "web", "198.51.100.1:8080"));
        // From all of them, and back again.
        sandbox.ok(["network", "disconnect", "back", "web"]);
        assert_eq!(networks(sandbox, "web").trim(), "");
        assert!(get("127.0.0.1:8080").is_err() && get("[::1]:8080").is_err());
        sandbox.ok(["restart", "-t", "0", "web"]);
        sandbox.ok(["network", "connect", "bridge", "web"]);
        assert_eq!(get_soon("127.0.0.1:8080"), hostname);
        sandbox.ok(["rm", "-f", "web", "db"]);
        assert_eq!((elements("ports4"), elements("ports_at4"), elements("members4")), (0, 0, 0));
        no_devices();
        sandbox.check_clean();
    });
}

#[test]
fn one_that_does_not_run_is_connected_when_it_begins() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "--subnet", "10.66.0.0/29", "front"]);
        sandbox.ok(["create", "--name", "late", "--network", "none", busybox, "sleep", "1000"]);
        sandbox.ok(["create", "--name", "hosted", "--network", "host", busybox, "true"]);
        assert!(sandbox.fails(1, ["network", "connect", "front", "late"]).contains("in private (none) mode"));
        assert!(sandbox.fails(1, ["network", "connect", "front", "hosted"]).contains("network namespace of the host"));
        sandbox.ok(["network", "disconnect", "none", "late"]);
        sandbox.ok(["network", "connect", "--ip", "10.66.0.4", "front", "late"]);
        let id = sandbox.ok(["network", "inspect", "-f", "{{.Id}}", "front"]);
        assert!(sandbox.fails(1, ["network", "connect", &id[..12], "late"]).contains("already exists"));
        sandbox.ok(["start", "late"]);
        assert_eq!(address(sandbox, "late", "front"), "10.66.0.4");
        assert!(sandbox.fails(1, ["network", "rm", "front"]).contains("active endpoints"));
        // Somebody has it who runs: nothing changes for who wants it as well.
        serve(sandbox, busybox, "second", &["--network", "bridge"]);
        let said = sandbox.fails(1, ["network", "connect", "--ip", "10.66.0.4", "front", "second"]);
        assert!(said.contains("Address already in use: 10.66.0.4"), "{said}");
        assert_eq!(networks(sandbox, "second").trim(), "bridge");
        sandbox.check_clean();
        sandbox.ok(["stop", "-t", "0", "late"]);
        // Gone while it was on it, and left all the same.
        sandbox.ok(["network", "rm", "front"]);
        assert!(sandbox.fails(1, ["start", "late"]).contains("network front not found"));
        sandbox.ok(["network", "disconnect", "-f", "front", "late"]);
        sandbox.ok(["start", "late"]);
        sandbox.ok(["rm", "-f", "late", "hosted", "second"]);
        sandbox.check_clean();
    });
}

#[test]
fn a_container_is_found_by_its_new_name() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        serve(sandbox, busybox, "web", &["--network", "front", "-p", "8080:80"]);
        serve(sandbox, busybox, "client", &["--network", "front"]);
        sandbox.ok(["rename", "web", "shop"]);
        assert_eq!(exec(sandbox, "client", "wget -q -O - http://shop/hostname").code, Some(0));
        assert_ne!(exec(sandbox, "client", "nslookup web 127.0.0.11").code, Some(0));
        assert!(sandbox.ok(["network", "inspect", "-f", "{{json .Containers}}", "front"]).contains("\"shop\""));
        get_soon("127.0.0.1:8080");
        sandbox.check_clean();
        sandbox.ok(["rm", "-f", "shop", "client"]);
    });
}

/// Nobody waits for ever, and nothing is believed that an older question's answer says.
#[test]
fn a_supervisor_that_was_stopped_does_it_when_it_goes_on() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "front"]);
        serve(sandbox, busybox, "web", &["--network", "bridge"]);
        let supervisor = supervisor(sandbox, "web");
        kill(supervisor, Signal::SIGSTOP).expect("a supervisor");
        let connecting = sandbox.start(["network", "connect", "front", "web"]);
        thread::sleep(Duration::from_millis(200));
        kill(supervisor, Signal::SIGCONT).expect("a supervisor");
        assert_eq!(connecting.wait().code, Some(0));
        assert_eq!(networks(sandbox, "web").trim(), "bridge front");
        // Who asked is gone before anybody answered: the record is ahead, which is named, and mended.
        kill(supervisor, Signal::SIGSTOP).expect("a supervisor");
        let disconnecting = sandbox.start(["network", "disconnect", "front", "web"]);
        until("the record", || {
            let shown = sandbox.ok(["ps", "--format", "{{.Networks}}"]);
            (shown.trim() == "bridge").then_some(())
        });
        disconnecting.signal(Signal::SIGKILL);
        disconnecting.wait();
        let said = sandbox.run(["system", "check"]);
        assert!(said.code == Some(1) && said.stdout.contains("container web is on other networks than"), "{said}");
        kill(supervisor, Signal::SIGCONT).expect("a supervisor");
        sandbox.ok(["system", "repair"]);
        assert_eq!((devices(), networks(sandbox, "web").trim()), (1, "bridge"));
        sandbox.check_clean();
        sandbox.ok(["rm", "-f", "web"]);
    });
}

/// Whoever is killed, at whatever moment: who asks, and who does it.
#[test]
fn what_is_killed_while_it_connects_loses_no_address() {
    alone(|sandbox, busybox| {
        sandbox.ok(["network", "create", "--subnet", "10.77.0.0/29", "small"]);
        serve(sandbox, busybox, "web", &["--network", "bridge", "-p", "8080:80"]);
        for round in 0..60_u64 {
            let command = if round % 2 == 0 { "connect" } else { "disconnect" };
            let asking = sandbox.start(["network", command, "small", "web"]);
            thread::sleep(Duration::from_micros(round * 300));
            asking.signal(Signal::SIGKILL);
            asking.wait();
        }
        sandbox.ok(["system", "repair"]);
        sandbox.check_clean();
        let on = networks(sandbox, "web").split_whitespace().count();
        assert_eq!((devices(), elements("members4")), (on, on));
        get_soon("127.0.0.1:8080");
        sandbox.ok(["rm", "-f", "web"]);
        for round in 0..20_u64 {
            serve(sandbox, busybox, "web", &["--network", "bridge"]);
            let supervisor = supervisor(sandbox, "web");
            let asking = sandbox.start(["network", "connect", "small", "web"]);
            thread::sleep(Duration::from_micros(2000 + round * 500));
            kill(supervisor, Signal::SIGKILL).expect("a supervisor");
            let asked = asking.wait();
            assert!(asked.code == Some(0) || asked.code == Some(1), "{asked}");
            until("the end of web", || (sandbox.inspect("web", ".State.Status") == "exited").then_some(()));
            sandbox.ok(["rm", "-f", "web"]);
            // With the container its addresses are free, whoever was killed.
            assert_eq!(elements("members4"), 0);
        }
        sandbox.ok(["system", "prune", "-f"]);
        sandbox.check_clean();
        assert_eq!(elements("members4"), 0);
        no_devices();
    });
}
