//! Amazon SES through SNS: bounces, complaints, deliveries.
//!
//! SNS signs fields of its JSON envelope with a certificate whose URL stands in the envelope, so
//! two rules carry everything: the URL is one of Amazon's, and the topic is one of ours. Any AWS
//! customer can point a topic at our URL and have AWS sign what it sends.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{self, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256};
use serde::Deserialize;
use serde_json::Value;

use crate::body::document::{self, Document};
use crate::request::RawRequest;
use crate::signature::certificate::RsaPublicKey;
use crate::signature::config::{ConfigError, read};
use crate::signature::refusal::{Refusal, RefusalKind};
use crate::signature::scheme::clock::moment;
use crate::signature::scheme::event::provider_type;
use crate::signature::scheme::source::DedupParts;
use crate::signature::verdict::{Material, Need, Occurrence, Verdict};

/// Most topics that one source takes.
const MAX_TOPICS: usize = 100;

/// What SES publishes once, as plain text, when a configuration set is connected to a topic.
const TOPIC_VALIDATED: &str = "Successfully validated SNS topic";

pub(crate) struct Ses {
    topic_arns: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    topic_arns: Vec<String>,
    dedup: Option<DedupParts>,
}

/// The fields of an SNS message that are signed, and the signature.
struct Envelope {
    kind: Kind,
    message_id: String,
    topic_arn: String,
    message: String,
    timestamp: String,
    subject: Option<String>,
    token: Option<String>,
    subscribe_url: Option<String>,
    signature_version: Option<String>,
    signature: Option<String>,
    signing_cert_url: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Notification,
    SubscriptionConfirmation,
    UnsubscribeConfirmation,
}

impl Ses {
    pub(crate) fn new(config: &Value) -> Result<(Self, Option<DedupParts>), ConfigError> {
        let Config { topic_arns, dedup } = read("", config)?;
        if topic_arns.is_empty() {
            return Err(ConfigError::at(
                "topic_arns",
                "names at least one topic; any AWS customer can send from others",
            ));
        }
        if topic_arns.len() > MAX_TOPICS {
            return Err(ConfigError::at("topic_arns", format!("must be at most {MAX_TOPICS}")));
        }
        if let Some(index) = topic_arns.iter().position(|arn| !arn.starts_with("arn:")) {
            return Err(ConfigError::at(&format!("topic_arns/{index}"), "must be the ARN of an SNS topic"));
        }
        Ok((Self { topic_arns }, dedup))
    }

    pub(crate) fn judge(&self, request: &RawRequest, material: &Material) -> Result<Verdict, Refusal> {
        let is_raw =
            request.headers.get("x-amz-sns-rawdelivery").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if is_raw {
            let detail = "raw message delivery carries no signature; turn it off for this subscription";
            return Err(refusal(RefusalKind::Unverifiable, detail));
        }
        let envelope = document::json(request.content_type(), &request.body).and_then(|body| Envelope::read(&body));
        let no_message = || refusal(RefusalKind::MalformedBody, "the body is not a message of SNS");
        let envelope = envelope.ok_or_else(no_message)?;
        let proof = Proof::of(&envelope)?;
        let is_allowed = self.topic_arns.contains(&envelope.topic_arn);
        let not_allowed = || refusal(RefusalKind::TopicNotAllowed, "the topic is none of this source's `topic_arns`");
        let Some(key) = material.certificate(proof.cert_url) else {
            // A stranger's topic is not worth a download.
            let need = Need::Certificate { url: proof.cert_url.to_owned() };
            return if is_allowed { Ok(Verdict::Needs(need)) } else { Err(not_allowed()) };
        };
        proof.verify(key, &envelope)?;
        if is_allowed { envelope.verdict() } else { Err(not_allowed()) }
    }
}

/// The signature of an envelope, and what verifies it.
struct Proof<'a> {
    algorithm: &'static signature::RsaParameters,
    signature: Vec<u8>,
    cert_url: &'a str,
}

impl<'a> Proof<'a> {
    fn of(envelope: &'a Envelope) -> Result<Self, Refusal> {
        let missing =
            |name: &str| refusal(RefusalKind::MissingHeader, &format!("`{name}` is missing from the message"));
        let algorithm = match envelope.signature_version.as_deref() {
            Some("1") => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Some("2") => &RSA_PKCS1_2048_8192_SHA256,
            Some(_) => return Err(refusal(RefusalKind::UnsupportedVersion, "`SignatureVersion` is neither 1 nor 2")),
            None => return Err(missing("SignatureVersion")),
        };
        let signature = envelope.signature.as_deref().ok_or_else(|| missing("Signature"))?;
        let signature = STANDARD.decode(signature);
        let signature = signature.map_err(|_| refusal(RefusalKind::MalformedHeader, "`Signature` is not base64"))?;
        let cert_url = envelope.signing_cert_url.as_deref().ok_or_else(|| missing("SigningCertURL"))?;
        if !is_certificate_url(cert_url) {
            return Err(refusal(RefusalKind::UntrustedCertUrl, "`SigningCertURL` is not a certificate of Amazon SNS"));
        }
        Ok(Self { algorithm, signature, cert_url })
    }

    fn verify(&self, key: &RsaPublicKey, envelope: &Envelope) -> Result<(), Refusal> {
        let key = signature::UnparsedPublicKey::new(self.algorithm, key.as_der());
        key.verify(envelope.signed_text()?.as_bytes(), &self.signature)
            .map_err(|_| refusal(RefusalKind::SignatureMismatch, "the signature is not that of this message"))
    }
}

impl Envelope {
    fn read(body: &Document<'_>) -> Option<Self> {
        let kind = match body.member("Type")?.as_str() {
            "Notification" => Kind::Notification,
            "SubscriptionConfirmation" => Kind::SubscriptionConfirmation,
            "UnsubscribeConfirmation" => Kind::UnsubscribeConfirmation,
            _ => return None,
        };
        Some(Self {
            kind,
            message_id: body.member("MessageId")?,
            topic_arn: body.member("TopicArn")?,
            message: body.member("Message")?,
            timestamp: body.member("Timestamp")?,
            subject: body.member("Subject"),
            token: body.member("Token"),
            subscribe_url: body.member("SubscribeURL"),
            signature_version: body.member("SignatureVersion"),
            signature: body.member("Signature"),
            signing_cert_url: body.member("SigningCertURL"),
        })
    }

    /// `name\nvalue\n` for each signed field, names in byte order.
    fn signed_text(&self) -> Result<String, Refusal> {
        let mut fields = vec![("Message", self.message.as_str()), ("MessageId", &self.message_id)];
        let missing =
            |name: &str| refusal(RefusalKind::MissingHeader, &format!("`{name}` is missing from the message"));
        if self.kind == Kind::Notification {
            fields.extend(self.subject.as_deref().map(|subject| ("Subject", subject)));
            fields.push(("Timestamp", &self.timestamp));
        } else {
            fields.push(("SubscribeURL", self.subscribe_url.as_deref().ok_or_else(|| missing("SubscribeURL"))?));
            fields.push(("Timestamp", &self.timestamp));
            fields.push(("Token", self.token.as_deref().ok_or_else(|| missing("Token"))?));
        }
        fields.push(("TopicArn", &self.topic_arn));
        let kind = match self.kind {
            Kind::Notification => "Notification",
            Kind::SubscriptionConfirmation => "SubscriptionConfirmation",
            Kind::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        };
        fields.push(("Type", kind));
        // Line breaks are all that tells fields apart, and only `Message` has any of its own. With one
        // in another field, a genuine message could be sent again under a different `MessageId`.
        let has_break = |(name, value): &&(&str, &str)| *name != "Message" && value.contains('\n');
        if let Some((name, _)) = fields.iter().find(has_break) {
            return Err(refusal(RefusalKind::MalformedBody, &format!("`{name}` holds a line break")));
        }
        Ok(fields.into_iter().flat_map(|(name, value)| [name, "\n", value, "\n"]).collect())
    }

    /// What follows from a message that is genuine and ours.
    fn verdict(self) -> Result<Verdict, Refusal> {
        match self.kind {
            Kind::Notification if self.message.starts_with(TOPIC_VALIDATED) => {
                Ok(Verdict::Ignore { detail: "SES has validated the topic".to_owned() })
            }
            Kind::Notification => {
                let occurrence = self.occurrence()?;
                Ok(Verdict::Events { occurrences: vec![occurrence], matched: None })
            }
            // Its SubscribeURL would subscribe again.
            Kind::UnsubscribeConfirmation => {
                Ok(Verdict::Ignore { detail: format!("`{}` no longer sends to this source", self.topic_arn) })
            }
            Kind::SubscriptionConfirmation => match self.subscribe_url {
                Some(url) if is_amazon_url(&url) => Ok(Verdict::Confirm { url }),
                _ => Err(refusal(RefusalKind::UntrustedSubscribeUrl, "`SubscribeURL` is not one of Amazon SNS")),
            },
        }
    }

    fn occurrence(self) -> Result<Occurrence, Refusal> {
        let inner = document::json("", self.message.as_bytes());
        let text = |pointer: &str| inner.as_ref()?.pointer(pointer).filter(|text| !text.contains('\0'));
        let event_type = text("/eventType").or_else(|| text("/notificationType")).filter(|text| !text.is_empty());
        if self.message_id.is_empty() || self.message_id.contains('\0') {
            return Err(refusal(RefusalKind::MalformedBody, "`MessageId` is empty"));
        }
        Ok(Occurrence {
            event_type: provider_type(event_type.as_deref().unwrap_or("sns.notification"))?,
            occurred_at: moment(&self.timestamp),
            account: text("/mail/sendingAccountId"),
            dedup_parts: vec![self.message_id.clone()],
            provider_event_id: Some(self.message_id),
            body: None,
        })
    }
}

/// `https://sns.<region>.amazonaws.com[.cn]/SimpleNotificationService-<32>.pem`, to the letter.
fn is_certificate_url(url: &str) -> bool {
    let name = amazon_path(url).and_then(|path| path.strip_prefix("SimpleNotificationService-"));
    let name = name.and_then(|name| name.strip_suffix(".pem"));
    name.is_some_and(|name| name.len() == 32 && name.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn is_amazon_url(url: &str) -> bool {
    amazon_path(url).is_some_and(|path| path.bytes().all(|b| b.is_ascii_graphic() && !b"#\\".contains(&b)))
}

/// What follows the first slash, if the host is one of Amazon SNS: no port, no user info.
fn amazon_path(url: &str) -> Option<&str> {
    let (host, path) = url.strip_prefix("https://")?.split_once('/')?;
    let region = host.strip_prefix("sns.")?;
    let region = region.strip_suffix(".cn").unwrap_or(region).strip_suffix(".amazonaws.com")?;
    let is_region = region.len() >= 3 && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_region.then_some(path)
}

fn refusal(kind: RefusalKind, detail: &str) -> Refusal {
    Refusal::new(kind, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_takes_in_its_neighbour() {
        let signed_text = |id: &str, subject: Option<&str>| {
            let envelope = serde_json::json!({
                "Type": "Notification", "MessageId": id, "Subject": subject, "Message": "one\ntwo",
                "TopicArn": "arn:aws:sns:a", "Timestamp": "2026-07-01T00:00:00.000Z",
            });
            let text = envelope.to_string();
            let envelope = Envelope::read(&document::json("", text.as_bytes()).unwrap()).unwrap();
            envelope.signed_text().map_err(|refusal| refusal.kind)
        };
        assert!(signed_text("id", Some("subject")).is_ok());
        assert_eq!(signed_text("id\nSubject\nsubject", None), Err(RefusalKind::MalformedBody));
    }

    #[test]
    fn only_amazons_own_certificates_are_fetched() {
        let name = "SimpleNotificationService-910cbf76bc89677be38292ae6d45128a.pem";
        for host in ["sns.us-east-1.amazonaws.com", "sns.cn-north-1.amazonaws.com.cn"] {
            assert!(is_certificate_url(&format!("https://{host}/{name}")), "{host}");
        }
        for host in [
            "sns.us-east-1.amazonaws.com.evil.example",
            "sns.us-east-1.amazonaws.com@evil.example",
            "sns.us-east-1.amazonaws.com:8443",
            "xsns.us-east-1.amazonaws.com",
            "sns.a.b.amazonaws.com",
            "sns..amazonaws.com",
            "sns.amazonaws.com",
            "s3.amazonaws.com",
            "evil.example/sns.us-east-1.amazonaws.com",
            "evil.example#sns.us-east-1.amazonaws.com",
        ] {
            assert!(!is_certificate_url(&format!("https://{host}/{name}")), "{host}");
        }
        assert!(!is_certificate_url(&format!("http://sns.us-east-1.amazonaws.com/{name}")));
        assert!(!is_certificate_url(&format!("https://sns.us-east-1.amazonaws.com/{name}?x")));
        assert!(!is_certificate_url(&format!("https://sns.us-east-1.amazonaws.com/a/{name}")));
    }
}
