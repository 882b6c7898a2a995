//! `/etc/hosts`: what it says of a name is the whole answer, as with the C library. So a name that it has is not asked
//! of name servers, which may not even be there.

use std::{fs::File, io::Read, net::IpAddr};

/// More than any real one has.
const MOST_BYTES: u64 = 4 << 20;

/// The addresses of a name on this machine; none if it is not in there.
pub(super) fn addresses(name: &str) -> Vec<IpAddr> {
    let mut text = Vec::new();
    // One that cannot be read says nothing.
    let read = File::open("/etc/hosts").and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
    read.map_or_else(|_| Vec::new(), |_| parse(&String::from_utf8_lossy(&text), name))
}

/// hosts(5).
fn parse(text: &str, wanted: &str) -> Vec<IpAddr> {
    let wanted = wanted.trim_end_matches('.');
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(wanted)).then_some(address)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whole_and_in_any_case() {
        let text =
            "127.0.0.1 localhost\n10.0.0.7\tr.example registry # other.example\n::7 R.Example.\nbad r.example\n\n";
        let found = |name: &str| parse(text, name).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(found("r.example"), "10.0.0.7 ::7");
        assert_eq!(found("REGISTRY."), "10.0.0.7");
        assert_eq!(found("other.example") + &found("example") + &found(""), "");
    }
}
