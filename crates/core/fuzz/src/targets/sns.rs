//! Messages of SNS: believed is only what Amazon signed, field by field.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use bytes::Bytes;
use posthorn_core::request::RawRequest;
use posthorn_core::signature::{Need, Verdict};
use serde::Deserialize;

use super::vectors::{Genuine, of_provider};

/// The fields that a signature covers.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Signed {
    #[serde(rename = "Type")]
    kind: String,
    message_id: String,
    topic_arn: String,
    message: String,
    timestamp: String,
    subject: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    token: Option<String>,
}

/// One source for each configuration.
static SOURCES: LazyLock<Vec<&Genuine>> = LazyLock::new(|| {
    let mut seen = BTreeSet::new();
    of_provider("ses_sns").filter(|genuine| seen.insert(format!("{:?}", genuine.vector.config))).collect()
});

static GENUINE: LazyLock<BTreeSet<Signed>> =
    LazyLock::new(|| of_provider("ses_sns").map(|genuine| signed(&genuine.request.body)).collect());

pub fn run(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    for source in &*SOURCES {
        let request = RawRequest { body: body.clone(), ..source.request.clone() };
        match source.verifier.judge(&request, None, source.vector.now(), &source.material) {
            Ok(Verdict::Needs(Need::Certificate { url })) => assert!(is_amazons(&url), "{url}"),
            Ok(Verdict::Needs(need)) => panic!("{need:?}"),
            Ok(Verdict::Confirm { url }) => {
                assert!(is_amazons(&url), "{url}");
                assert!(GENUINE.contains(&signed(&body)), "not what Amazon signed");
            }
            Ok(_) => assert!(GENUINE.contains(&signed(&body)), "not what Amazon signed"),
            Err(_) => {}
        }
    }
}

fn signed(body: &[u8]) -> Signed {
    let mut signed: Signed = serde_json::from_slice(body).expect("a message of SNS");
    if signed.kind == "Notification" {
        (signed.subscribe_url, signed.token) = (None, None);
    } else {
        signed.subject = None;
    }
    signed
}

fn is_amazons(url: &str) -> bool {
    let host = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#', '\\', ':', '@']).next());
    host.is_some_and(|host| {
        host.starts_with("sns.") && (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
    })
}
