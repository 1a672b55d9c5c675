//! One module for each target. `run` takes what a stranger sent and panics where core is wrong.

pub mod allow_list;
pub mod certificate;
pub mod configuration;
pub mod endpoint;
pub mod envelope;
pub mod event_type;
pub mod message;
pub mod pubsub_token;
pub mod refused_request;
pub mod retry_after;
pub mod schema;
pub mod sns;
pub mod twilio;
pub mod vectors;
pub mod verifier;

/// The time of the vectors, seconds since 1970.
const NOW: i64 = 1_782_864_000;

/// A target, in the tests as in libFuzzer.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const ALL: [(&str, Target); 14] = [
    ("allow_list", allow_list::run),
    ("certificate", certificate::run),
    ("configuration", configuration::run),
    ("endpoint", endpoint::run),
    ("envelope", envelope::run),
    ("event_type", event_type::run),
    ("message", message::run),
    ("pubsub_token", pubsub_token::run),
    ("refused_request", refused_request::run),
    ("retry_after", retry_after::run),
    ("schema", schema::run),
    ("sns", sns::run),
    ("twilio", twilio::run),
    ("verifier", verifier::run),
];

fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_second(NOW).expect("a time")
}

/// `data` up to the first line break, and what follows it.
fn first_line(data: &[u8]) -> (String, &[u8]) {
    let (line, rest) = match data.iter().position(|&b| b == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    (String::from_utf8_lossy(line).into_owned(), rest)
}
