//! The addresses from which a source takes requests, a line each.

use std::net::{IpAddr, Ipv4Addr};

use posthorn_core::address::AllowList;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.lines().take(100).collect();
    match AllowList::parse(&lines) {
        Err(index) => assert!(index < lines.len()),
        Ok(list) => {
            assert_eq!(list.allows(None), lines.is_empty(), "an unknown address comes in only where all may");
            for address in lines.iter().filter_map(|line| line.parse::<IpAddr>().ok()) {
                assert!(list.allows(Some(address)), "an address allows itself");
            }
            let here = Ipv4Addr::new(192, 0, 2, 7);
            let mapped = IpAddr::V6(here.to_ipv6_mapped());
            assert_eq!(list.allows(Some(here.into())), list.allows(Some(mapped)), "one address in two spellings");
        }
    }
}
