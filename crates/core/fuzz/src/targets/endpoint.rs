//! The URL of an endpoint: what a strict deployment takes is public as far as its text tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use posthorn_core::egress::Egress;
use posthorn_core::endpoint::{EndpointUrl, Error, MAX_LEN};

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let open = Egress { allow_http: true, allow_private_networks: true, ..Egress::default() };
    let strict = Egress::default();
    let parsed = EndpointUrl::parse(&text, &strict);
    if let Ok(known) = EndpointUrl::known(&text) {
        // Of what a tenant gives, the host is held to more than that of what was registered before.
        assert!(parsed == Err(Error::NotPlain) || parsed.is_ok() == known.permit(&strict).is_ok());
        check_text(&known);
        // A deployment that allows more refuses nothing that a strict one takes.
        assert!(parsed.is_err() || known.permit(&open).is_ok());
    } else {
        assert!(parsed.is_err());
    }
    if let Ok(endpoint) = parsed {
        check_strict(&endpoint, &strict);
    }
}

fn check_text(endpoint: &EndpointUrl) {
    let url = endpoint.as_url();
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    // Escapes make a URL longer than it was written; but for that, it is read as it is shown.
    let shown = endpoint.to_string();
    assert!(shown.len() > MAX_LEN || EndpointUrl::known(&shown).as_ref() == Ok(endpoint), "{shown}");
}

fn check_strict(endpoint: &EndpointUrl, strict: &Egress) {
    assert_eq!(endpoint.as_url().scheme(), "https");
    let shown = EndpointUrl::known(endpoint.as_url().as_str());
    assert!(shown.is_err() || shown.is_ok_and(|shown| shown.permit(strict).is_ok()));
    let host = endpoint.as_url().host_str().expect("a host");
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => assert!(is_public_v4(address), "{address}"),
        Ok(IpAddr::V6(address)) => assert!(is_public_v6(address), "{address}"),
        Err(_) => assert!(is_public_name(host), "{host}"),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_special = address.is_private() || address.is_loopback() || address.is_link_local();
    !is_shared && !is_special && a != 0 && a < 224
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let carried = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let is_global = s[0] & 0xe000 == 0x2000;
    match s {
        [0, 0, 0, 0, 0 | 0xffff, 0, high, low] | [0, 0, 0, 0, 0, 0xffff, high, low] => is_public_v4(carried(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(carried(high, low)),
        [0x2002, high, low, ..] => is_public_v4(carried(high, low)),
        _ => is_global,
    }
}

/// A name that no resolver takes for a number, and that is none of the local network.
fn is_public_name(host: &str) -> bool {
    let labels: Vec<_> = host.strip_suffix('.').unwrap_or(host).split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    let is_number = |label: &str| {
        let hex = label.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        hex || (!label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()))
    };
    !is_number(last) && !["localhost", "local", "internal"].contains(&last) && !labels.ends_with(&["home", "arpa"])
}
