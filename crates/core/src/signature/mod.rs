//! Whether a provider's request is genuine, and what it says happened.
//!
//! A request comes in as bytes; a [`Verifier`] holds what its source has configured. Together with
//! the time they give a [`Verdict`] or a [`Refusal`]. Nothing here fetches: what a verdict needs
//! from the network it asks for, and the caller asks again with it in [`Material`].
//!
//! Three rules hold for every provider. The algorithm comes from the configuration, never from the
//! request. Digests are compared in constant time. Nothing of a body is believed before its
//! signature held, except by the few schemes whose signature lies inside the body.

mod certificate;
mod config;
mod google_pubsub;
mod imitation;
mod jwt;
mod key_set;
mod preset;
mod public_url;
mod refusal;
mod scheme;
mod ses;
pub mod standard;
mod twilio;
mod verdict;

use std::fmt;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::provider::Provider;
use crate::request::RawRequest;
use crate::signature::google_pubsub::GooglePubsub;
use crate::signature::scheme::Scheme;
use crate::signature::scheme::event::rekey;
use crate::signature::scheme::source::DedupParts;
use crate::signature::ses::Ses;
use crate::signature::twilio::Twilio;

pub use config::{ConfigError, MAX_KEYS, SECRET, is_secret, split_secrets};
pub use imitation::{Imitation, ImitationError, Wish, new_secret, takes_secrets};
pub use preset::preset_names;
pub use refusal::{Refusal, RefusalClass, RefusalKind};
pub use verdict::{Answer, Material, Need, Occurrence, Verdict};

/// What a source verifies with: its configuration and secrets, parsed once.
pub struct Verifier {
    provider: Provider,
    method: Method,
    /// The source's own rule for what makes an event new, where the method has no place for it.
    dedup: Option<DedupParts>,
}

/// How requests are verified.
enum Method {
    Scheme(Box<Scheme>),
    Twilio(Twilio),
    Ses(Ses),
    GooglePubsub(GooglePubsub),
}

impl Verifier {
    /// `config` is the public part, `secrets` what [`split_secrets`] took out, newest first.
    #[expect(clippy::needless_pass_by_value, reason = "secrets are handed over, not lent: no copy stays behind")]
    pub fn new(
        provider: Provider,
        config: &serde_json::Value,
        secrets: Vec<SecretString>,
    ) -> Result<Self, ConfigError> {
        let is_public = matches!(provider, Provider::Ses | Provider::GooglePubsub);
        if is_public && !secrets.is_empty() {
            return Err(ConfigError::at("secrets", format!("`{provider}` is verified with public keys")));
        }
        let (method, dedup) = match provider {
            Provider::Twilio => Twilio::new(config, &secrets).map(|(twilio, dedup)| (Method::Twilio(twilio), dedup))?,
            Provider::Ses => Ses::new(config).map(|(ses, dedup)| (Method::Ses(ses), dedup))?,
            Provider::GooglePubsub => {
                GooglePubsub::new(config).map(|(google, dedup)| (Method::GooglePubsub(google), dedup))?
            }
            _ => (Method::Scheme(Box::new(preset::scheme(provider, config, &secrets)?)), None),
        };
        Ok(Self { provider, method, dedup })
    }

    /// Decides on a request that came in at `now`.
    ///
    /// `path_event` is the last segment of `/webhooks/{source}/{event}`, if the request had one.
    pub fn judge(
        &self,
        request: &RawRequest,
        path_event: Option<&str>,
        now: Timestamp,
        material: &Material,
    ) -> Result<Verdict, Refusal> {
        let mut verdict = match &self.method {
            Method::Scheme(scheme) => scheme.judge(request, path_event, now),
            Method::Twilio(twilio) => twilio.judge(request),
            Method::Ses(ses) => ses.judge(request, material),
            Method::GooglePubsub(google) => google.judge(request, path_event, now, material),
        }?;
        if let (Some(dedup), Verdict::Events { occurrences, .. }) = (&self.dedup, &mut verdict) {
            occurrences.iter_mut().for_each(|occurrence| rekey(occurrence, request, dedup));
        }
        Ok(verdict)
    }

    /// Writes the request that the provider would send, signed with the newest secret.
    pub fn imitate(&self, wish: &Wish<'_>) -> Result<Imitation, ImitationError> {
        match &self.method {
            Method::Scheme(scheme) => scheme.imitate(wish),
            Method::Twilio(twilio) => twilio.imitate(wish),
            Method::Ses(_) | Method::GooglePubsub(_) => Err(ImitationError::KeyNotHere),
        }
    }

    /// Whether anything is verified at all. False only for a scheme with the algorithm `none`.
    pub fn is_verifying(&self) -> bool {
        match &self.method {
            Method::Scheme(scheme) => scheme.is_verifying(),
            Method::Twilio(_) | Method::Ses(_) | Method::GooglePubsub(_) => true,
        }
    }

    /// The headers in which senders show a secret as it is: what they hold is kept nowhere.
    pub fn secret_headers(&self) -> &[String] {
        match &self.method {
            Method::Scheme(scheme) => scheme.secret_headers(),
            Method::Twilio(_) | Method::Ses(_) | Method::GooglePubsub(_) => &[],
        }
    }

    /// The methods of requests that can be meant for this source. Events come by POST; some handshakes, and Twilio's
    /// callbacks where they are configured so, come by GET. By HEAD some providers look whether the URL is there.
    pub fn methods(&self) -> &'static [&'static str] {
        let takes_get = match &self.method {
            Method::Scheme(scheme) => scheme.takes_get(),
            Method::Twilio(_) => true,
            Method::Ses(_) | Method::GooglePubsub(_) => false,
        };
        if takes_get { &["GET", "HEAD", "POST"] } else { &["HEAD", "POST"] }
    }

    /// The answer to a HEAD request: that of the scheme's handshake, or 200.
    pub fn head(&self, request: &RawRequest, now: Timestamp) -> Answer {
        let declared = match &self.method {
            Method::Scheme(scheme) => scheme.head(request, now),
            Method::Twilio(_) | Method::Ses(_) | Method::GooglePubsub(_) => None,
        };
        declared.unwrap_or_else(|| Answer { status: 200, content_type: "text/plain".to_owned(), body: String::new() })
    }

    /// The key set whose keys this source's senders sign with, if that is how they do.
    ///
    /// On [`RefusalKind::UnknownKey`] a caller fetches it anew, at a limited rate, and asks again.
    pub fn key_set_url(&self) -> Option<&str> {
        match &self.method {
            Method::GooglePubsub(google) => Some(&google.jwks_url),
            Method::Scheme(_) | Method::Twilio(_) | Method::Ses(_) => None,
        }
    }
}

impl fmt::Debug for Verifier {
    /// Without keys: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("provider", &self.provider).finish_non_exhaustive()
    }
}
