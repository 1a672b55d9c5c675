//! Which addresses a delivery may reach: the guard against server-side request forgery.
//!
//! A tenant chooses the URL, so whatever our own network trusts by address must be out of reach.
//! The guard looks at addresses, never at names, and sees through every form that carries an IPv4
//! address inside an IPv6 one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::address::network;

/// How a deployment departs from `https` to any port of any public address. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// For development.
    pub allow_http: bool,
    /// Loopback and private ranges; never link-local, where clouds keep their credentials. For development.
    pub allow_private_networks: bool,
    /// Loopback and private ranges that are open although the others are not. Opens nothing else.
    pub allow: Networks,
    /// Out of reach, whatever else is allowed.
    pub deny: Networks,
    pub ports: Ports,
}

/// Networks in CIDR form and single addresses, written with commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Networks(Arc<[IpNet]>);

/// Ports that endpoints may have, written with commas between them. None given are all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Ports(Arc<[u16]>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("`{0}` is neither a network such as `10.0.0.0/8` nor an address")]
    NotNetwork(String),
    #[error("`{0}` is not a port from 1 to 65535")]
    NotPort(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0} is not a public address")]
    NotPublic(IpAddr),
    #[error("{0} is not an address that anything is delivered to")]
    Never(IpAddr),
    #[error("{0} is in a network to which this deployment delivers nothing")]
    Denied(IpAddr),
    #[error("the name is one of the local network")]
    LocalName,
}

/// Ranges that a deployment can open: loopback, RFC 1918, shared address space, unique local.
const PRIVATE_V4: [Ipv4Net; 5] = [
    v4([127, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([100, 64, 0, 0], 10),
];

/// IANA's special-purpose registry for IPv4, without the ranges above: no receiver is there.
const NEVER_V4: [Ipv4Net; 10] = [
    v4([0, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

const UNIQUE_LOCAL: Ipv6Net = v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);
const COMPATIBLE: Ipv6Net = v6([0, 0, 0, 0, 0, 0, 0, 0], 96);
/// IPv4-translated, RFC 2765.
const TRANSLATED: Ipv6Net = v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96);

/// Everything in 2000::/3 is global, but for these.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const NEVER_V6: [Ipv6Net; 3] = [
    // IETF protocol assignments: Teredo, benchmarking, ORCHID.
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

impl Egress {
    /// Whether some addresses that are not public may be reached.
    pub fn opens_private_networks(&self) -> bool {
        self.allow_private_networks || !self.allow.0.is_empty()
    }

    /// Whether this address may be reached, which is loopback or private.
    fn opens(&self, private: IpAddr) -> bool {
        self.allow_private_networks || self.allow.contains(private)
    }
}

impl Networks {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }
}

impl TryFrom<String> for Networks {
    type Error = ListError;

    fn try_from(text: String) -> Result<Self, ListError> {
        listed(&text)
            .map(|one| network(one).ok_or_else(|| ListError::NotNetwork(one.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Ports {
    pub fn permit(&self, port: u16) -> bool {
        self.0.is_empty() || self.0.contains(&port)
    }
}

impl TryFrom<String> for Ports {
    type Error = ListError;

    fn try_from(text: String) -> Result<Self, ListError> {
        let port = |one: &str| one.parse().ok().filter(|port| *port > 0);
        listed(&text)
            .map(|one| port(one).ok_or_else(|| ListError::NotPort(one.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Nothing is no entry; nothing between two commas is one that says nothing, and is refused as such.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    let is_empty = text.trim().is_empty();
    text.split(',').map(str::trim).filter(move |_| !is_empty)
}

/// Whether a delivery may go to `address`.
pub fn permit(address: IpAddr, egress: &Egress) -> Result<(), Refused> {
    let carried = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded_v4(v6).map(IpAddr::V4),
    };
    if [Some(address), carried].into_iter().flatten().any(|address| egress.deny.contains(address)) {
        return Err(Refused::Denied(address));
    }
    match address {
        IpAddr::V4(v4) => permit_v4(v4, egress),
        IpAddr::V6(v6) => permit_v6(v6, egress),
    }
}

/// Names that mean this machine or this network whatever a resolver says (RFC 6761, RFC 8375).
pub fn is_local_name(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    ["localhost", "local", "internal", "home.arpa"]
        .iter()
        .any(|local| host == *local || host.strip_suffix(local).is_some_and(|rest| rest.ends_with('.')))
}

fn permit_v4(address: Ipv4Addr, egress: &Egress) -> Result<(), Refused> {
    if NEVER_V4.iter().any(|net| net.contains(&address)) {
        return Err(Refused::Never(address.into()));
    }
    let private = PRIVATE_V4.iter().any(|net| net.contains(&address));
    if private && !egress.opens(address.into()) {
        return Err(Refused::NotPublic(address.into()));
    }
    Ok(())
}

fn permit_v6(address: Ipv6Addr, egress: &Egress) -> Result<(), Refused> {
    let private = address.is_loopback() || UNIQUE_LOCAL.contains(&address);
    if private {
        return if egress.opens(address.into()) { Ok(()) } else { Err(Refused::NotPublic(address.into())) };
    }
    if let Some(inner) = embedded_v4(address) {
        return permit_v4(inner, egress);
    }
    if !GLOBAL_UNICAST.contains(&address) || NEVER_V6.iter().any(|net| net.contains(&address)) {
        return Err(Refused::Never(address.into()));
    }
    Ok(())
}

/// The IPv4 address that a gateway on the way would take out of `address`.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    if [MAPPED, COMPATIBLE, TRANSLATED, NAT64].iter().any(|net| net.contains(&address)) {
        return Some(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]));
    }
    SIX_TO_FOUR.contains(&address).then(|| Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5]))
}

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]), prefix)
}

const fn v6(s: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_an_address_that_is_not_public_passes() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2002:a9fe:a9fe::",
            "2002:c0a8:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00::1",
            "fdff:ffff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff00::1",
            "ff02::1",
            "ff0e::1",
            "4000::1",
            "e000::1",
        ];
        for text in refused {
            assert!(permit(text.parse().unwrap(), &Egress::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn public_addresses_pass() {
        let permitted = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::",
            "::ffff:8.8.8.8",
        ];
        for text in permitted {
            assert!(permit(text.parse().unwrap(), &Egress::default()).is_ok(), "{text}");
        }
    }

    #[test]
    fn development_opens_private_ranges_but_never_link_local() {
        let open = Egress { allow_http: true, allow_private_networks: true, ..Egress::default() };
        for text in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "::ffff:127.0.0.1"] {
            assert!(permit(text.parse().unwrap(), &open).is_ok(), "{text}");
        }
        for text in ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "::ffff:169.254.169.254"] {
            assert!(permit(text.parse().unwrap(), &open).is_err(), "{text}");
        }
    }

    fn networks(text: &str) -> Networks {
        Networks::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn what_is_denied_is_refused_in_every_form_and_whatever_is_allowed() {
        let deny = networks("8.8.8.0/24, 2606:4700::/32, 10.9.0.0/16");
        let egress = Egress { allow_private_networks: true, allow: networks("10.9.0.0/16"), deny, ..Egress::default() };
        let refused = [
            "8.8.8.8",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::",
            "2606:4700::1111",
            "10.9.1.1",
            "::ffff:10.9.1.1",
            "64:ff9b::10.9.1.1",
        ];
        for text in refused {
            let address = text.parse().unwrap();
            assert_eq!(permit(address, &egress), Err(Refused::Denied(address)), "{text}");
        }
        for text in ["8.8.9.8", "::ffff:8.8.9.8", "2a00:1450::1", "10.8.1.1"] {
            assert_eq!(permit(text.parse().unwrap(), &egress), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_private_range_is_opened_by_itself_and_nothing_opens_what_is_never_reached() {
        let allow = networks("10.1.0.0/16,fd00:1::/32,127.0.0.1");
        let some = Egress { allow, ..Egress::default() };
        for text in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00:1::7", "127.0.0.1", "8.8.8.8"] {
            assert_eq!(permit(text.parse().unwrap(), &some), Ok(()), "{text}");
        }
        for text in ["10.2.0.1", "64:ff9b::10.2.0.1", "fd00:2::1", "127.0.0.2", "::1", "192.168.0.1"] {
            assert!(matches!(permit(text.parse().unwrap(), &some), Err(Refused::NotPublic(_))), "{text}");
        }
        let all = Egress { allow: networks("0.0.0.0/0,::/0"), ..Egress::default() };
        for text in
            ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "0.0.0.0", "fe80::1", "ff02::1"]
        {
            assert!(matches!(permit(text.parse().unwrap(), &all), Err(Refused::Never(_))), "{text}");
        }
    }

    #[test]
    fn a_list_is_refused_with_the_entry_that_is_none() {
        assert_eq!(networks(" "), Networks::default());
        assert_eq!(networks("::ffff:10.0.0.0/104"), networks("10.0.0.0/8"));
        for wrong in ["10.0.0.0/33", "internal", ""] {
            let list = format!("10.0.0.0/8, {wrong}");
            assert_eq!(Networks::try_from(list), Err(ListError::NotNetwork(wrong.to_owned())));
        }
        let ports = Ports::try_from("443, 8443".to_owned()).unwrap();
        assert!(ports.permit(443) && ports.permit(8443) && !ports.permit(80));
        assert!(Ports::default().permit(22));
        for wrong in ["0", "65536", "https", "-1"] {
            assert_eq!(Ports::try_from(wrong.to_owned()), Err(ListError::NotPort(wrong.to_owned())));
        }
    }

    #[test]
    fn local_names_are_known_with_and_without_the_final_dot() {
        for name in ["localhost", "LOCALHOST.", "a.localhost", "db.internal", "printer.local", "x.home.arpa"] {
            assert!(is_local_name(name), "{name}");
        }
        for name in ["example.com", "notlocalhost", "local.example.com"] {
            assert!(!is_local_name(name), "{name}");
        }
    }
}
