use super::*;
use std::{net::TcpListener, sync::atomic::AtomicUsize};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn network(allowed: &[&str], hosts: &str) -> Network {
    let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
    let setting = NetworkSetting {
        destinations: Some(Destinations::parse(&allowed).unwrap()),
        listens: false,
        names: NameFiles { resolv_conf: Vec::new(), hosts: hosts.as_bytes().to_vec() },
        authorities: Vec::new(),
    };
    Network::new(setting, |_| ())
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn connected(network: &Network, host: &str, port: u16) -> Result<(), Refusal> {
    runtime().block_on(network.connect(host, port, Duration::from_secs(20))).map(drop)
}

#[test]
fn a_name_that_leads_to_this_machine_is_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let hosts = "127.0.0.1 rebound.example\n169.254.169.254 metadata.example\n10.0.0.1 in.wild.example\n";
    let network = network(&["rebound.example", "metadata.example", "*.wild.example"], hosts);
    for name in ["rebound.example", "REBOUND.example.", "metadata.example", "in.wild.example"] {
        assert!(matches!(connected(&network, name, port), Err(Refusal::Misled)), "{name}");
    }
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost", "other.example", "127.1"] {
        assert!(matches!(connected(&network, host, port), Err(Refusal::Denied)), "{host}");
    }
    assert!(listener.set_nonblocking(true).is_ok() && listener.accept().is_err(), "nobody came");
    let named = self::network(&["rebound.example", &format!("127.0.0.1:{port}")], hosts);
    assert!(connected(&named, "rebound.example", port).is_ok(), "the address is granted, too");
    assert!(connected(&named, "[::ffff:127.0.0.1]", port).is_ok());
    assert!(connected(&self::network(&["localhost"], ""), "localhost", port).is_ok());
}

#[test]
fn sockets_connect_to_what_was_looked_up_and_to_its_ports() {
    let network = network(&["db.example:5432", "192.0.2.0/24:80"], "203.0.113.7 db.example\n");
    let connects = |address| network.permits(at(address), SocketAddrUse::TcpConnect);
    assert!(connects("192.0.2.1:80") && !connects("192.0.2.1:81"));
    assert!(!connects("203.0.113.7:5432"), "nobody has looked it up");
    assert_eq!(runtime().block_on(network.look_up("DB.example")).unwrap(), [at("203.0.113.7:0").ip()]);
    assert!(connects("203.0.113.7:5432") && !connects("203.0.113.7:22") && !connects("203.0.113.8:5432"));
    assert!(network.permits(at("203.0.113.7:5432"), SocketAddrUse::UdpSend));
    assert!(matches!(runtime().block_on(network.look_up("other.example")), Err(Refusal::Denied)));
}

#[test]
fn who_may_connect_may_not_listen() {
    let network = network(&["*"], "");
    assert!(network.permits(at("0.0.0.0:0"), SocketAddrUse::TcpBind));
    for used_for in [SocketAddrUse::TcpBind, SocketAddrUse::UdpBind, SocketAddrUse::TcpListen] {
        assert!(!network.permits(at("0.0.0.0:80"), used_for), "{used_for:?}");
    }
}

#[test]
fn without_a_network_nothing_is_permitted_and_it_is_told_once() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    let network = Network::none(|what| {
        assert_eq!(what, "a.example:443");
        TOLD.fetch_add(1, Relaxed);
    });
    for _ in 0..3 {
        assert!(matches!(connected(&network, "a.example", 443), Err(Refusal::Denied)));
    }
    assert!(!network.permits(at("192.0.2.1:80"), SocketAddrUse::TcpConnect));
    assert_eq!(TOLD.load(Relaxed), 1);
}

#[test]
fn what_is_remembered_of_names_is_bounded() {
    let network = network(&["*"], "");
    let Some(setting) = &network.0.setting else { panic!("it has one") };
    for number in 0..5000_u32 {
        setting.remember("a.example", &[IpAddr::from(number.to_be_bytes())]);
        setting.remember("a.example", &[IpAddr::from([10, 0, 0, 1])]);
    }
    assert_eq!(setting.resolved.lock().unwrap().len(), REMEMBERED);
}
