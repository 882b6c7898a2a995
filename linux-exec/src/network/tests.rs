//! Against the kernel, in network namespaces of the tests' own: nothing stays on the machine.

use std::{
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
};

use super::{
    Link, Links, Veth,
    namespace::{inside, make},
    nftables::{
        Element, Family, Field, Filter, Hook, HookPoint, Layer, Load, Part, Table, Transaction, Value,
        closed_forward_chains, count_elements,
    },
};
use crate::Error;

/// Calls `test` in a new network namespace, on a thread of its own.
fn alone(test: impl FnOnce() -> Result<(), Error> + Send) {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: a network namespace needs root");
    }
    std::thread::scope(|scope| scope.spawn(|| make(test).unwrap()).join().unwrap());
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn bridge(links: &Links, name: &str) -> Link {
    assert!(links.add_bridge(name, [2, 0, 0, 0, 0, 1], 1400).unwrap());
    let bridge = links.find(name).unwrap().unwrap();
    assert!(!bridge.up);
    bridge
}

#[test]
fn a_pair_of_devices_connects_two_namespaces() {
    alone(|| {
        let links = Links::open()?;
        let bridge = bridge(&links, "br-test");
        assert_eq!((bridge.kind.as_str(), bridge.mtu), ("bridge", 1400));
        assert!(!links.add_bridge("br-test", [2; 6], 1400)?);
        links.configure(bridge.index, &[(ip("10.9.0.1"), 24), (ip("fd09::1"), 64)], &[])?;
        let (inner, there) = make(Links::open)?;
        let (name, peer, peer_mac) = ("veth-test", "eth0", [2, 0, 0, 0, 0, 2]);
        let namespace = inner.as_fd();
        let veth = Veth { name, bridge: bridge.index, peer, peer_mac, namespace, mtu: 1400 };
        assert!(links.add_veth(&veth)? && !links.add_veth(&veth)?);
        let port = links.find("veth-test")?.unwrap();
        assert_eq!((port.master, port.up, port.kind.as_str()), (Some(bridge.index), true, "veth"));
        links.join_bridge(&port, &bridge)?;
        links.set_hairpin(&port)?;
        let eth0 = there.find("eth0")?.unwrap();
        assert!(!eth0.up && eth0.mtu == 1400);
        links.configure(bridge.index, &[(ip("10.9.0.1"), 24)], &[])?;
        there.configure(eth0.index, &[(ip("10.9.0.2"), 24), (ip("fd09::2"), 64)], &[ip("10.9.0.1"), ip("fd09::1")])?;
        // There is one already, which stays.
        there.route_by_default(eth0.index, ip("10.9.0.99"))?;
        there.route_by_default(eth0.index, ip("fd09::99"))?;
        assert!(there.route_by_default(99, ip("10.9.0.99")).is_err());
        assert!(there.addresses()?.contains(&(eth0.index, ip("10.9.0.2"), 24)));
        assert_eq!(there.routes()?.iter().filter(|route| route.destination.is_none()).count(), 2);
        assert!(links.routes()?.iter().any(|route| route.destination == Some((ip("10.9.0.0"), 24))));
        for address in ["10.9.0.2:80", "[fd09::2]:80"] {
            let listener = inside(inner.as_fd(), || Ok::<_, Error>(TcpListener::bind(address).unwrap()))?;
            TcpStream::connect(address).unwrap();
            drop(listener);
        }
        assert!(links.delete("veth-test")? && !links.delete("veth-test")?);
        assert!(there.find("eth0")?.is_none() && links.list()?.iter().any(|link| link.name == "br-test"));
        Ok(())
    });
}

#[test]
fn what_the_kernel_refuses_is_named() {
    alone(|| {
        let links = Links::open()?;
        let bridge = bridge(&links, "br-test");
        let message = links.configure(bridge.index, &[(ip("10.9.0.1"), 24), (ip("10.9.0.2"), 99)], &[]).unwrap_err();
        assert!(message.to_string().contains("the address 10.9.0.2/99"), "{message}");
        let message = links.configure(bridge.index, &[], &[ip("192.0.2.1")]).unwrap_err().to_string();
        assert!(message.contains("route"), "{message}");
        let message = links.add_bridge("a-name-of-seventeen", [2; 6], 1400).unwrap_err().to_string();
        assert!(message.contains("a-name-of-seventeen"), "{message}");
        assert_eq!(links.find("nothing")?, None);
        Ok(())
    });
}

/// It is closed by the kernel, so that nobody waits for what was removed: it must be closed all the same.
#[test]
fn a_socket_of_the_packet_filter_goes() {
    alone(|| {
        let open = || {
            let listed = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
            listed.lines().filter(|line| line.split_whitespace().nth(1) == Some("12")).count()
        };
        // The kernel's own is listed, too; others are when they were used.
        let before = open();
        let filters = [Filter::open()?, Filter::open()?];
        for filter in &filters {
            assert!(filter.commit(translation())?);
            let mut gone = Transaction::default();
            gone.delete_table(TABLE);
            assert!(filter.commit(gone)?);
        }
        assert_eq!(open(), before + 2);
        drop(filters);
        for _ in 0..1000 {
            if open() == before {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{} sockets are still open", open() - before);
    });
}

const TABLE: Table<'static> = Table { family: Family::Inet, name: "test" };
const DESTINATION: [Load; 2] = [Load::Protocol, Load::Header(Layer::Transport, 2, 2)];

fn to(port: u16, host: &str, inner_port: u16) -> Element<'static> {
    let value = vec![Value::Ip(ip(host)), Value::Port(inner_port)];
    Element { key: vec![Value::Protocol(17), Value::Port(port)], value }
}

fn translation() -> Transaction {
    let mut filter = Transaction::default();
    filter.table(TABLE);
    filter.set(TABLE, "ports", &[Field::Protocol, Field::Port], &[Field::Ipv4, Field::Port]);
    filter.chain(TABLE, "output", Some(Hook { nat: true, at: HookPoint::Output, priority: -100 }));
    let translate = Part::TranslateTo { key: &DESTINATION, map: "ports", v6: false };
    filter.rule(TABLE, "output", &[Part::Is(Load::IpVersion, &[2]), Part::Local, translate]);
    filter
}

#[test]
fn a_map_of_ports_leads_packets_elsewhere() {
    alone(|| {
        let listener = UdpSocket::bind("127.0.0.2:9000").unwrap();
        listener.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let mut filter = translation();
        let many: Vec<_> = (1000..3000).map(|port| to(port, "127.0.0.2", 9000)).collect();
        filter.add(TABLE, "ports", &many);
        assert!(Filter::open()?.commit(filter)?);
        assert_eq!(count_elements(TABLE, "ports")?, Some(2000));
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", "127.0.0.1:2999").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(listener.recv(&mut buffer).unwrap(), 5);
        let mut filter = Transaction::default();
        filter.remove(TABLE, "ports", &many[..1999]);
        assert!(Filter::open()?.commit(filter)?);
        assert_eq!(count_elements(TABLE, "ports")?, Some(1));
        Ok(())
    });
}

#[test]
fn all_changes_are_made_or_none() {
    alone(|| {
        assert_eq!(count_elements(TABLE, "ports")?, None);
        let mut missing = Transaction::default();
        missing.add(TABLE, "ports", &[to(1, "127.0.0.2", 1)]);
        assert!(!Filter::open()?.commit(missing)?);
        assert!(Filter::open()?.commit(translation())?);
        let mut half = Transaction::default();
        half.add(TABLE, "ports", &[to(1, "127.0.0.2", 1)]);
        half.remove(TABLE, "ports", &[to(2, "127.0.0.2", 1)]);
        assert!(!Filter::open()?.commit(half)?);
        assert_eq!(count_elements(TABLE, "ports")?, Some(0));
        let mut other_value = Transaction::default();
        other_value.add(TABLE, "ports", &[to(1, "127.0.0.2", 1)]);
        other_value.add(TABLE, "ports", &[to(1, "127.0.0.3", 1)]);
        assert!(!Filter::open()?.commit(other_value)?);
        let mut gone = Transaction::default();
        gone.table(TABLE);
        gone.delete_table(TABLE);
        assert!(Filter::open()?.commit(gone)?);
        assert_eq!(count_elements(TABLE, "ports")?, None);
        Ok(())
    });
}

#[test]
fn every_part_of_a_rule_is_taken() {
    alone(|| {
        let names = [Load::InputDevice, Load::OutputDevice];
        for (family, at) in [(Family::Inet, HookPoint::Forward), (Family::Bridge, HookPoint::Prerouting)] {
            let table = Table { family, name: "test" };
            let mut filter = Transaction::default();
            filter.table(table);
            filter.set(table, "names", &[Field::Device], &[]);
            filter.set(table, "pairs", &[Field::Device, Field::Device], &[]);
            filter.set(table, "owners", &[Field::Device, Field::Mac, Field::Ipv6], &[]);
            filter.chain(table, "other", None);
            filter.chain(table, "base", Some(Hook { nat: false, at, priority: -200 }));
            let owner = [Load::InputDevice, Load::Header(Layer::Link, 6, 6), Load::Header(Layer::Network, 8, 16)];
            filter.rule(table, "base", &[Part::In(&[Load::InputDevice], "names"), Part::Jump("other")]);
            filter.rule(table, "base", &[Part::NotIn(&names[..1], "names"), Part::Accept]);
            if family == Family::Inet {
                filter.rule(table, "base", &[Part::In(&names, "pairs"), Part::Established, Part::Accept]);
                filter.rule(table, "base", &[Part::Translated, Part::Accept]);
            }
            filter.rule(
                table,
                "other",
                &[Part::Is(Load::EtherType, &[0x86, 0xdd]), Part::NotIn(&owner, "owners"), Part::Drop],
            );
            let header = Load::Header(Layer::Network, 8, 16);
            filter.rule(table, "other", &[Part::Masked(header, &[0xff; 16], &[0; 16]), Part::Drop]);
            let key = vec![Value::Device("veth0"), Value::Mac([1; 6]), Value::Ip(ip("fe80::1"))];
            filter.add(table, "owners", &[Element { key, value: Vec::new() }]);
            assert!(Filter::open()?.commit(filter)?, "{family:?}");
            assert_eq!(count_elements(table, "owners")?, Some(1));
        }
        let mut masquerade = Transaction::default();
        masquerade.table(TABLE);
        masquerade.chain(TABLE, "out", Some(Hook { nat: true, at: HookPoint::Postrouting, priority: 100 }));
        masquerade.rule(TABLE, "out", &[Part::Masquerade]);
        assert!(Filter::open()?.commit(masquerade)?);
        assert_eq!(closed_forward_chains()?, Vec::<String>::new());
        Ok(())
    });
}
