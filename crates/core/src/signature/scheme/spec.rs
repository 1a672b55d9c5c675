//! Schemes as configurations and presets write them, and the rules that make one acceptable.

use secrecy::SecretString;
use serde::Deserialize;

use crate::body::path::JsonPath;
use crate::signature::config::{ConfigError, read};
use crate::signature::public_url::PublicUrl;
use crate::signature::scheme::clock::TimestampSpec;
use crate::signature::scheme::event::{Extract, provider_type};
use crate::signature::scheme::handshake::Handshake;
use crate::signature::scheme::imitate::Sample;
use crate::signature::scheme::key::{Algorithm, KeyEncoding};
use crate::signature::scheme::layout::SignatureSpec;
use crate::signature::scheme::proof::Proof;
use crate::signature::scheme::source::{Dedup, DedupParts, Source, Unkeyed};
use crate::signature::scheme::template::{Part, Template};
use crate::signature::scheme::{BodyKind, Scheme, keyring, rules};

/// A scheme as it is written down.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    algorithm: Option<Algorithm>,
    #[serde(default)]
    key_encoding: KeyEncoding,
    /// Prefixes that keys may have and that are no part of them.
    #[serde(default)]
    key_strip_prefix: Names,
    signature: Option<SignatureSpec>,
    timestamp: Option<TimestampSpec>,
    signed: Option<Template>,
    /// For presets only: the provider signs without the body, and there is nothing to be done.
    #[serde(default)]
    leaves_body_unsigned: bool,
    body: Option<BodyKind>,
    #[serde(default)]
    extract: Extract,
    dedup: Option<DedupParts>,
    /// What a request is that lacks a part of `dedup`.
    #[serde(default)]
    unkeyed: Unkeyed,
    batch: Option<JsonPath>,
    #[serde(default)]
    handshake: Vec<Handshake>,
    /// A usual request, for trying a source out.
    #[serde(default)]
    sample: Sample,
    /// Whether the source's owner makes up the secret, and not the provider.
    #[serde(default)]
    secret_is_chosen_here: bool,
    /// What is to be known about the provider; for people.
    #[serde(default, rename = "about")]
    _about: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "OneOrMany")]
struct Names(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Names {
    fn from(names: OneOrMany) -> Self {
        match names {
            OneOrMany::One(name) => Self(vec![name]),
            OneOrMany::Many(names) => Self(names),
        }
    }
}

/// What a source adds to a scheme.
#[derive(Debug, Default)]
pub(crate) struct Additions<'a> {
    pub(crate) secrets: &'a [SecretString],
    /// The name of the field that the secrets come from.
    pub(crate) secrets_field: &'a str,
    pub(crate) public_keys: &'a [String],
    pub(crate) tolerance_seconds: Option<u64>,
    pub(crate) public_url: Option<&'a str>,
    pub(crate) dedup: Option<DedupParts>,
    pub(crate) verify_token: Option<String>,
    /// Whether the path of the request may name the event.
    pub(crate) takes_path_event: bool,
}

impl Spec {
    /// Reads a scheme that a tenant wrote: held to rules that a preset may be excused from.
    pub(crate) fn parse_own(config: &serde_json::Value) -> Result<Self, ConfigError> {
        // serde would take a list for each of them, field by field.
        let parts = ["signature", "timestamp", "extract", "sample"];
        if let Some(part) = parts.into_iter().find(|part| config.get(*part).is_some_and(serde_json::Value::is_array)) {
            return Err(ConfigError::at(&format!("scheme/{part}"), "must be a JSON object"));
        }
        let mut spec: Self = read("scheme", config)?;
        spec.secret_is_chosen_here = true;
        if spec.leaves_body_unsigned {
            return Err(ConfigError::at("scheme/leaves_body_unsigned", "only a preset may leave the body unsigned"));
        }
        Ok(spec)
    }

    /// Checks the scheme and makes it ready for use.
    pub(crate) fn compile(self, additions: &Additions<'_>) -> Result<Scheme, ConfigError> {
        let public_url = self.public_url(additions.public_url)?;
        self.check_extract()?;
        let body = self.body.unwrap_or(if self.reads_json() { BodyKind::Json } else { BodyKind::Any });
        let is_id_signed = self.is_id_signed();
        let default_dedup = match &self.dedup {
            Some(parts) => parts.clone(),
            None if is_id_signed => DedupParts::of(&[Part::Id]),
            // An id that anybody can change makes no event new: its content does.
            None => DedupParts::of(&[Part::Type, Part::BodySha256]),
        };
        let (extract, batch, handshakes) = (self.extract.clone(), self.batch.clone(), self.handshake.clone());
        let takes_path_event = additions.takes_path_event;
        let parts = additions.dedup.clone().unwrap_or(default_dedup);
        let dedup = Dedup { parts, unkeyed: self.unkeyed };
        let verify_token = additions.verify_token.clone();
        if verify_token.is_some() && !handshakes.iter().any(Handshake::asks_for_verify_token) {
            return Err(ConfigError::at("verify_token", "this scheme has no handshake with a token"));
        }
        let sample = self.sample.clone();
        let proof = self.proof(additions)?;
        let keys = proof.as_ref().map_or(&[][..], |proof| &proof.keys);
        for (index, handshake) in handshakes.iter().enumerate() {
            let place = format!("scheme/handshake/{index}");
            handshake.check(keys).map_err(|detail| ConfigError::at(&place, detail))?;
        }
        Ok(Scheme {
            proof,
            public_url,
            body,
            extract,
            dedup,
            batch,
            handshakes,
            verify_token,
            takes_path_event,
            sample,
        })
    }

    /// Whether senders prove themselves with a secret that the source holds.
    pub(crate) fn takes_secret(&self) -> bool {
        match (self.algorithm, &self.signature) {
            (Some(algorithm), _) => algorithm.is_secret(),
            (None, Some(signature)) => {
                signature.clone().compile(None).is_ok_and(|rule| rule.algorithms().iter().any(|one| one.is_secret()))
            }
            (None, None) => false,
        }
    }

    /// A new secret of random bytes, where it is the owner's to choose.
    pub(crate) fn new_secret(&self, random: &[u8; 32]) -> Option<SecretString> {
        if !self.secret_is_chosen_here || self.algorithm.is_some_and(|algorithm| !algorithm.is_secret()) {
            return None;
        }
        let prefix = self.key_strip_prefix.0.first().map(String::as_str).unwrap_or_default();
        // 24 bytes need no padding in base64, which receivers' libraries disagree on.
        let bytes = if self.key_encoding == KeyEncoding::Base64 { &random[..24] } else { &random[..] };
        let user = if self.algorithm == Some(Algorithm::Basic) { "posthorn:" } else { "" };
        Some(format!("{prefix}{user}{}", self.key_encoding.encode(bytes)?).into())
    }

    fn public_url(&self, text: Option<&str>) -> Result<Option<PublicUrl>, ConfigError> {
        let signs_url = self.signed.as_ref().is_some_and(|signed| signed.holds(&Part::Url));
        match text {
            Some(text) if signs_url => {
                PublicUrl::parse(text).map(Some).map_err(|detail| ConfigError::at("public_url", detail))
            }
            Some(_) => Err(ConfigError::at("public_url", "this scheme does not sign the URL")),
            None if signs_url => Err(ConfigError::at("public_url", "is required: this scheme signs the URL")),
            None => Ok(None),
        }
    }

    fn check_extract(&self) -> Result<(), ConfigError> {
        let Extract { event_id, event_type, occurred_at, account, default_type } = &self.extract;
        let places =
            [("event_id", event_id), ("event_type", event_type), ("occurred_at", occurred_at), ("account", account)];
        for (name, choice) in places {
            let holds = |part| choice.sources().iter().any(|source| source.holds(&part));
            if [Part::Body, Part::Id, Part::Type, Part::Minute].into_iter().any(holds) {
                let place = format!("scheme/extract/{name}");
                return Err(ConfigError::at(&place, "is not made of `{body}`, `{id}`, `{type}` or `{minute}`"));
            }
        }
        let default = default_type.as_deref().map_or(Ok(()), |text| provider_type(text).map(|_| ()));
        default.map_err(|refusal| ConfigError::at("scheme/extract/default_type", refusal.detail))
    }

    fn reads_json(&self) -> bool {
        let Extract { event_id, event_type, occurred_at, account, default_type: _ } = &self.extract;
        let dedup = self.dedup.iter().flat_map(DedupParts::parts);
        let mut choices = [event_id, event_type, occurred_at, account].into_iter().chain(dedup);
        self.batch.is_some() || choices.any(|choice| choice.sources().iter().any(Source::reads_json))
    }

    /// Whether an event's id can be trusted to tell events apart: it is signed, or the time is, so
    /// that a request with another id soon is too old; or nothing is signed at all.
    fn is_id_signed(&self) -> bool {
        let Some(signed) = &self.signed else { return true };
        let is_source_signed = |source: &Source| match source {
            Source::Header(names) => {
                signed.holds(&Part::Id) || names.iter().all(|name| signed.holds(&Part::Header(name.clone())))
            }
            Source::Query(_) => signed.holds(&Part::Url),
            Source::Json(_) => true,
            Source::Template(template) => {
                !template.parts().iter().any(|part| matches!(part, Part::Header(_) | Part::Query(_)))
            }
        };
        self.timestamp.as_ref().is_some_and(TimestampSpec::is_limited)
            || self.extract.event_id.sources().iter().all(is_source_signed)
    }

    fn proof(self, additions: &Additions<'_>) -> Result<Option<Proof>, ConfigError> {
        if self.algorithm == Some(Algorithm::None) {
            return self.nothing_to_prove(additions).map(|()| None);
        }
        let id = self.extract.event_id.clone();
        let signature = match (self.signature, self.algorithm) {
            (Some(signature), _) => signature,
            (None, Some(Algorithm::Basic)) => SignatureSpec::default(),
            (None, Some(_)) => return Err(ConfigError::at("scheme/signature", "is required")),
            (None, None) => return Err(ConfigError::at("scheme/algorithm", "is required")),
        };
        let rule = signature.compile(self.algorithm)?;
        let tolerance = additions.tolerance_seconds;
        let timestamp = self.timestamp.map(|spec| spec.compile(tolerance)).transpose();
        let timestamp = timestamp.map_err(|detail| ConfigError::at("scheme/timestamp", detail))?;
        rules::check_signed(&rule, self.signed.as_ref(), self.leaves_body_unsigned, &id)?;
        rules::check_timestamp(timestamp.as_ref(), tolerance, &rule, self.signed.as_ref())?;
        let keys = keyring::keys(&rule.algorithms(), self.key_encoding, &self.key_strip_prefix.0, additions)?;
        Ok(Some(Proof { rule, timestamp, signed: self.signed, keys, id }))
    }

    fn nothing_to_prove(&self, additions: &Additions<'_>) -> Result<(), ConfigError> {
        let is_bare = self.signature.is_none() && self.timestamp.is_none() && self.signed.is_none();
        if !is_bare || additions.tolerance_seconds.is_some() {
            return Err(ConfigError::at("scheme", "the algorithm `none` verifies nothing, neither signature nor time"));
        }
        if !additions.secrets.is_empty() {
            return Err(ConfigError::at(additions.secrets_field, "the algorithm `none` uses no secret"));
        }
        if !additions.public_keys.is_empty() {
            return Err(ConfigError::at("public_keys", "the algorithm `none` uses no key"));
        }
        Ok(())
    }
}
