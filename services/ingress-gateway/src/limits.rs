//! Who sends, how much of it is taken in at once, and how many refusals are worth keeping.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use moka::sync::Cache;
use posthorn_core::id::SourceId;
use posthorn_core::pace::{self, Bucket};

/// The sender's address: the peer's, or behind `trusted_proxies` reverse proxies the one that the
/// outermost of them saw. Each proxy appends the address it saw, so whatever stands further left was
/// written by the sender and means nothing.
pub fn sender(peer: Option<IpAddr>, forwarded_for: Option<&str>, trusted_proxies: usize) -> Option<IpAddr> {
    if trusted_proxies == 0 {
        return peer;
    }
    address(forwarded_for?.rsplit(',').nth(trusted_proxies - 1)?.trim())
}

/// An address as proxies write it: bare, in brackets, or with the port that the sender had.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

/// Takes one of `per_second`; `Err` tells when there will be one again.
pub fn take(bucket: &Mutex<Bucket>, per_second: f64, now: Timestamp) -> Result<(), Timestamp> {
    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
    let (taken, left) = pace::take(&bucket, per_second, 1, now);
    *bucket = left;
    if taken == 1 { Ok(()) } else { Err(pace::next_token(&left, per_second, now)) }
}

/// The rates of single addresses at sources that limit them.
#[derive(Clone, Debug)]
pub struct AddressRates(Cache<(SourceId, IpAddr), Arc<Mutex<Bucket>>>);

impl AddressRates {
    /// Remembers up to `addresses` of them, those used last.
    pub fn new(addresses: u64) -> Self {
        // A bucket is full again a second after it was last used, and is then like a new one.
        Self(Cache::builder().max_capacity(addresses).time_to_idle(Duration::from_secs(10)).build())
    }

    pub fn take(&self, source: SourceId, address: IpAddr, per_second: f64, now: Timestamp) -> Result<(), Timestamp> {
        let fresh = || Arc::new(Mutex::new(Bucket { tokens: 0.0, at: None }));
        take(&self.0.get_with((source, network(address)), fresh), per_second, now)
    }
}

/// Whoever has an IPv6 address has the 2^64 beside it as well.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// What is being taken in right now: requests, and the bytes of their bodies.
#[derive(Debug)]
pub struct InFlight {
    max_requests: usize,
    max_bytes: usize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl InFlight {
    pub fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self { max_requests, max_bytes, requests: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    /// Room for one more request, until the ticket is dropped.
    pub fn enter(&self) -> Option<Ticket<'_>> {
        let ticket = Ticket { all: self, bytes: 0 };
        // Counted before it is looked at: two at once must not both find the last place.
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        (before < self.max_requests).then_some(ticket)
    }
}

/// One request's share of [`InFlight`].
#[derive(Debug)]
pub struct Ticket<'a> {
    all: &'a InFlight,
    bytes: usize,
}

impl Ticket<'_> {
    /// Room for so many more bytes of the body; false if there is none.
    pub fn hold(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let before = self.all.bytes.fetch_add(bytes, Ordering::Relaxed);
        before + bytes <= self.all.max_bytes
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.all.requests.fetch_sub(1, Ordering::Relaxed);
        self.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Counts refusals by source and minute.
#[derive(Debug, Default)]
pub struct RefusalBudget(Mutex<Minute>);

/// What was counted in one minute. No more addresses are counted than refusals are kept.
#[derive(Debug, Default)]
struct Minute {
    number: i64,
    by_source: HashMap<Option<SourceId>, u32>,
    by_sender: HashMap<(Option<SourceId>, Option<IpAddr>), u32>,
}

impl RefusalBudget {
    /// Whether one more of this source may be kept. Unknown sources share one budget, and no address has
    /// more than half of any: a stranger must not displace what somebody will want to verify again.
    pub fn take(&self, source: Option<SourceId>, sender: Option<IpAddr>, per_minute: u32, now: Timestamp) -> bool {
        let number = now.as_second() / 60;
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.number != number {
            *minute = Minute { number, ..Minute::default() };
        }
        if minute.by_source.get(&source).is_some_and(|count| *count >= per_minute) {
            return false;
        }
        let sent = minute.by_sender.entry((source, sender.map(network))).or_default();
        if *sent >= per_minute.div_ceil(2) {
            return false;
        }
        *sent += 1;
        *minute.by_source.entry(source).or_default() += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_trusted_proxy_appended_is_believed() {
        let peer = Some("10.0.0.1".parse().unwrap());
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(sender(peer, Some("1.2.3.4"), 0), peer);
        assert_eq!(sender(peer, Some("6.6.6.6, 1.2.3.4"), 1), ip("1.2.3.4"));
        assert_eq!(sender(peer, Some("6.6.6.6, 1.2.3.4, 10.0.0.9"), 2), ip("1.2.3.4"));
        assert_eq!(sender(peer, Some("1.2.3.4"), 2), None, "fewer hops than proxies: nobody vouches for it");
        assert_eq!(sender(peer, None, 1), None);
        assert_eq!(sender(peer, Some("2001:db8::1"), 1), ip("2001:db8::1"));
        assert_eq!(sender(peer, Some("6.6.6.6:1, 1.2.3.4:5678"), 1), ip("1.2.3.4"), "some proxies add the port");
        assert_eq!(sender(peer, Some("[2001:db8::1]:443"), 1), ip("2001:db8::1"));
        assert_eq!(sender(peer, Some("[2001:db8::1]"), 1), ip("2001:db8::1"));
        assert_eq!(sender(peer, Some("unknown"), 1), None);
    }

    #[test]
    fn an_address_has_its_own_rate_and_shares_it_with_its_ipv6_neighbours() {
        let rates = AddressRates::new(100);
        let source = SourceId::from_uuid(uuid::Uuid::from_u128(1));
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let take = |address: &str, secs| rates.take(source, address.parse().unwrap(), 1.0, at(secs));
        assert_eq!(take("192.0.2.1", 100), Ok(()));
        assert_eq!(take("192.0.2.1", 100), Err(at(101)));
        assert_eq!(take("::ffff:192.0.2.1", 100), Err(at(101)), "the same address in another spelling");
        assert_eq!(take("192.0.2.2", 100), Ok(()));
        assert_eq!(take("192.0.2.1", 101), Ok(()));
        assert_eq!(take("2001:db8::1", 100), Ok(()));
        assert!(take("2001:db8::2", 100).is_err());
        assert_eq!(take("2001:db8:0:1::1", 100), Ok(()));
    }

    #[test]
    fn no_more_requests_and_bytes_are_taken_in_than_there_is_room_for() {
        let all = InFlight::new(2, 100);
        let mut first = all.enter().unwrap();
        let second = all.enter().unwrap();
        assert!(all.enter().is_none());
        drop(second);
        let mut second = all.enter().unwrap();
        assert!(first.hold(60) && !second.hold(60));
        drop(second);
        assert!(all.enter().unwrap().hold(40));
    }

    #[test]
    fn refusals_are_kept_up_to_the_budget_and_again_the_next_minute() {
        let budget = RefusalBudget::default();
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let ip = |text: &str| Some(text.parse().unwrap());
        let take = |sender, secs| budget.take(None, sender, 4, at(secs));
        assert!(take(ip("192.0.2.1"), 0) && take(ip("192.0.2.1"), 1));
        assert!(!take(ip("192.0.2.1"), 2), "an address has half of it");
        assert!(take(ip("192.0.2.2"), 3) && take(None, 4));
        assert!(!take(ip("192.0.2.3"), 5), "it is used up");
        assert!(take(ip("192.0.2.1"), 60));
    }
}
