//! From which addresses a source takes requests.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks and single addresses. Empty allows every address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<IpNet>);

impl AllowList {
    /// Reads each of `texts`; `Err` is the index of the first that is neither a network in CIDR form nor
    /// an address.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, usize> {
        let parsed = texts.iter().enumerate().map(|(index, text)| network(text.as_ref()).ok_or(index));
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a request from `address` may come in. An unknown address may where all may.
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        self.0.is_empty()
            || address.is_some_and(|address| {
                let address = address.to_canonical();
                self.0.iter().any(|net| net.contains(&address))
            })
    }
}

/// Reads a network in CIDR form, or an address as the network that holds only it. An IPv4 one is IPv4,
/// however it is written.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let net: IpNet = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    // Addresses are compared in their shortest form, so networks have to be in theirs.
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V4(v4), Some(prefix)) => IpNet::new(v4.into(), prefix).ok(),
        _ => Some(net),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_allowed_in_whichever_spelling_it_comes() {
        let list = AllowList::parse(&[
            "192.0.2.0/24",
            "198.51.100.7",
            "2001:db8::/32",
            "::ffff:203.0.113.0/120",
            "::ffff:10.0.0.1",
        ])
        .unwrap();
        for (address, allowed) in [
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("203.0.113.200", true),
            ("::ffff:10.0.0.1", true),
            ("10.0.0.2", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(list.allows(address.parse().ok()), allowed, "{address}");
        }
        assert!(!list.allows(None));
        assert!(AllowList::default().allows(None));
        assert_eq!(AllowList::parse(&["10.0.0.0/8", "10.0.0.0/33"]), Err(1));
    }
}
