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
pub fn classify(status: u16, retry_after: Option<&str>, now: Timestamp) -> Attempted {
    match status {
        200..=299 => Attempted::Accepted,
        410 => Attempted::Failed(Fault::Gone),
        429 | 503 => Attempted::Failed(Fault::Status {
            status,
            retry_after: retry_after.and_then(|text| parse_retry_after(text, now)),
        }),
        _ => Attempted::Failed(Fault::Status { status, retry_after: None }),
    }
}

/// The code that the API shows for a failure.
pub fn error_code(fault: &Fault) -> &'static str {
    match fault {
        Fault::Gone => "gone",
        Fault::Status { status: 300..=399, .. } => "redirect",
        Fault::Status { .. } => "status",
        Fault::NoAnswer(reason) => reason.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_is_success_and_only_429_and_503_are_asked_how_long() {
        let now = Timestamp::UNIX_EPOCH;
        let failed = |status, secs: Option<u64>| {
            Attempted::Failed(Fault::Status { status, retry_after: secs.map(Duration::from_secs) })
        };
        assert_eq!(classify(200, None, now), Attempted::Accepted);
        assert_eq!(classify(299, None, now), Attempted::Accepted);
        assert_eq!(classify(301, None, now), failed(301, None));
        assert_eq!(classify(410, None, now), Attempted::Failed(Fault::Gone));
        assert_eq!(classify(429, Some("7"), now), failed(429, Some(7)));
        assert_eq!(classify(503, Some("7"), now), failed(503, Some(7)));
        assert_eq!(classify(500, Some("7"), now), failed(500, None));
    }
}
