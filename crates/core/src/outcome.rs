//! What came of an attempt: accepted, or which kind of failure.

use std::time::Duration;

use jiff::Timestamp;

use crate::retry::parse_retry_after;

/// The result of an attempt that was made. Our own faults never become one: they leave the
/// delivery as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempted {
    Accepted,
    Failed(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 410: the receiver asks never to be called again.
    Gone,
    Status {
        status: u16,
    },
    /// 429, or 503 with `Retry-After`: the endpoint is well, and asks for time.
    NotNow {
        status: u16,
        /// `None`: it does not say how long.
        retry_after: Option<Duration>,
    },
    NoAnswer(NoAnswer),
}

/// Why there is no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The name did not resolve.
    Dns,
    /// The guard refused the address.
    Address,
    /// The address answers, and nobody listens at the port.
    Refused,
    /// No connection for another reason: unreachable, reset while connecting.
    Connect,
    Tls,
    Timeout,
    /// The connection ended, or what came was not HTTP.
    Protocol,
}

impl NoAnswer {
    /// The code that the API shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns_failed",
            Self::Address => "address_not_permitted",
            Self::Refused => "connection_refused",
            Self::Connect => "connection_failed",
            Self::Tls => "tls_failed",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol_error",
        }
    }
}

/// Reads an answer. Only 2xx is success; a redirect is a failure, since the signature was made for
/// the endpoint that the tenant named. `Retry-After` counts on 429 and 503 only.
///
/// `retry_after` is the header's text.
pub fn classify(status: u16, retry_after: Option<&str>, now: Timestamp) -> Attempted {
    match status {
        200..=299 => Attempted::Accepted,
        410 => Attempted::Failed(Fault::Gone),
        429 | 503 => {
            let retry_after = retry_after.and_then(|text| parse_retry_after(text, now));
            let is_down = status == 503 && retry_after.is_none();
            Attempted::Failed(if is_down { Fault::Status { status } } else { Fault::NotNow { status, retry_after } })
        }
        _ => Attempted::Failed(Fault::Status { status }),
    }
}

/// The code of an answer by which an endpoint asks for time. The record leaves such attempts out of what it knows of an
/// endpoint's health.
pub const NOT_NOW: &str = "not_now";

/// The code that the API shows for a failure.
pub fn error_code(fault: &Fault) -> &'static str {
    match fault {
        Fault::Gone => "gone",
        Fault::Status { status: 300..=399, .. } => "redirect",
        Fault::Status { .. } => "status",
        Fault::NotNow { .. } => NOT_NOW,
        Fault::NoAnswer(reason) => reason.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_is_success_and_only_429_and_503_are_asked_how_long() {
        let now = Timestamp::UNIX_EPOCH;
        let failed = |status| Attempted::Failed(Fault::Status { status });
        let not_now = |status, secs: Option<u64>| {
            Attempted::Failed(Fault::NotNow { status, retry_after: secs.map(Duration::from_secs) })
        };
        assert_eq!(classify(200, None, now), Attempted::Accepted);
        assert_eq!(classify(299, None, now), Attempted::Accepted);
        assert_eq!(classify(301, None, now), failed(301));
        assert_eq!(classify(410, None, now), Attempted::Failed(Fault::Gone));
        assert_eq!(classify(429, Some("7"), now), not_now(429, Some(7)));
        assert_eq!(classify(429, None, now), not_now(429, None));
        assert_eq!(classify(429, Some("soon"), now), not_now(429, None));
        assert_eq!(classify(503, Some("7"), now), not_now(503, Some(7)));
        assert_eq!(classify(503, Some("soon"), now), failed(503));
        assert_eq!(classify(503, None, now), failed(503));
        assert_eq!(classify(500, Some("7"), now), failed(500));
    }
}
