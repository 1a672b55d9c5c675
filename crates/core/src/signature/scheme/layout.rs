//! How signatures stand in a header: alone, among keys and values, or in a list with versions.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::signature::config::ConfigError;
use crate::signature::refusal::{Refusal, RefusalKind};
use crate::signature::scheme::key::{Algorithm, Encoding};
use crate::signature::scheme::source::Source;

/// Most signatures that are looked at in one request. Senders that rotate send two; a stranger who
/// sends many makes every key read the body as often.
const MAX_CANDIDATES: usize = 8;

/// Where the signature stands and how it is written, as a configuration says it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SignatureSpec {
    header: Option<serde_json::Value>,
    query: Option<String>,
    json: Option<String>,
    encoding: Option<Encoding>,
    format: Format,
    prefix: Option<String>,
    pair_sep: Option<String>,
    kv_sep: Option<String>,
    signature_key: Option<String>,
    item_sep: Option<String>,
    version_sep: Option<String>,
    versions: Option<Versions>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// The signature, after `prefix` if there is one.
    #[default]
    Raw,
    /// The same, said outright.
    Prefix,
    /// `t=…,v1=…,v1=…`
    Kv,
    /// `v1,… v1a,…`
    List,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Versions {
    Same(Vec<String>),
    Each(BTreeMap<String, Algorithm>),
}

/// Where the signature stands and how it is written.
#[derive(Clone, Debug)]
pub(crate) struct SignatureRule {
    pub(crate) source: Source,
    encoding: Encoding,
    layout: Layout,
}

#[derive(Clone, Debug)]
enum Layout {
    Raw { prefix: String, algorithm: Algorithm },
    Kv { pair_sep: String, kv_sep: String, key: String, algorithm: Algorithm },
    List { item_sep: String, version_sep: String, versions: BTreeMap<String, Algorithm> },
}

/// A signature that was sent, and the algorithm that its place implies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) algorithm: Algorithm,
    pub(crate) bytes: Vec<u8>,
}

impl SignatureSpec {
    /// `algorithm` is the scheme's, if it names a single one.
    pub(crate) fn compile(self, algorithm: Option<Algorithm>) -> Result<SignatureRule, ConfigError> {
        let fault = |detail: String| ConfigError::at("scheme/signature", detail);
        let is_basic = algorithm == Some(Algorithm::Basic);
        let source = match (self.header, self.query, self.json) {
            (Some(header), None, None) => Source::try_from(serde_json::json!({ "header": header })),
            (None, Some(query), None) => Ok(Source::Query(query)),
            (None, None, Some(json)) => Source::try_from(serde_json::json!({ "json": json })),
            (None, None, None) if is_basic => Ok(Source::Header(vec!["authorization".to_owned()])),
            _ => Err("must have exactly one of `header`, `query` and `json`".to_owned()),
        };
        let source = source.map_err(fault)?;
        let one = || algorithm.ok_or_else(|| ConfigError::at("scheme/algorithm", "is required"));
        let text = |value: Option<String>, name: &str, default: &str| {
            let text = Some(value.unwrap_or_else(|| default.to_owned())).filter(|text| !text.is_empty());
            text.ok_or_else(|| ConfigError::at(&format!("scheme/signature/{name}"), "must be a text that is not empty"))
        };
        let layout = match self.format {
            Format::Raw | Format::Prefix => Layout::Raw { prefix: self.prefix.unwrap_or_default(), algorithm: one()? },
            Format::Kv => Layout::Kv {
                pair_sep: text(self.pair_sep, "pair_sep", ",")?,
                kv_sep: text(self.kv_sep, "kv_sep", "=")?,
                key: text(self.signature_key, "signature_key", "")?,
                algorithm: one()?,
            },
            Format::List => Layout::List {
                item_sep: text(self.item_sep, "item_sep", " ")?,
                version_sep: text(self.version_sep, "version_sep", ",")?,
                versions: match self.versions {
                    Some(Versions::Each(versions)) => versions,
                    Some(Versions::Same(names)) => {
                        let one = one()?;
                        names.into_iter().map(|name| (name, one)).collect()
                    }
                    None => return Err(fault("has `versions`, which says what counts".to_owned())),
                },
            },
        };
        Ok(SignatureRule { source, encoding: self.encoding.unwrap_or_default(), layout })
    }
}

impl SignatureRule {
    /// The algorithms that signatures may have here.
    pub(crate) fn algorithms(&self) -> Vec<Algorithm> {
        match &self.layout {
            Layout::Raw { algorithm, .. } | Layout::Kv { algorithm, .. } => vec![*algorithm],
            Layout::List { versions, .. } => versions.values().copied().collect(),
        }
    }

    /// The value of `key` beside the signature, where the layout has keys and values.
    pub(crate) fn beside<'a>(&self, text: &'a str, key: &str) -> Option<&'a str> {
        match &self.layout {
            Layout::Kv { pair_sep, kv_sep, .. } => pairs(text, pair_sep, kv_sep).find(|(k, _)| *k == key).map(|p| p.1),
            Layout::Raw { .. } | Layout::List { .. } => None,
        }
    }

    pub(crate) fn has_pairs(&self) -> bool {
        matches!(self.layout, Layout::Kv { .. })
    }

    /// The signatures in `text` that some key of `algorithms` could verify. At least one, or a refusal.
    pub(crate) fn candidates(&self, text: &str, algorithms: &[Algorithm]) -> Result<Vec<Candidate>, Refusal> {
        let found: Vec<(Algorithm, &str)> = match &self.layout {
            Layout::Raw { prefix, algorithm } => {
                text.strip_prefix(prefix.as_str()).map(|s| (*algorithm, s)).into_iter().collect()
            }
            Layout::Kv { pair_sep, kv_sep, key, algorithm } => {
                pairs(text, pair_sep, kv_sep).filter(|(k, _)| k == key).map(|(_, value)| (*algorithm, value)).collect()
            }
            Layout::List { item_sep, version_sep, versions } => {
                let items = text.split(item_sep.as_str()).filter_map(|item| item.split_once(version_sep.as_str()));
                items
                    .filter_map(|(version, value)| versions.get(version).map(|algorithm| (*algorithm, value)))
                    .collect()
            }
        };
        let usable: Vec<_> = found.into_iter().filter(|(algorithm, _)| algorithms.contains(algorithm)).collect();
        if usable.is_empty() {
            return Err(Refusal::new(RefusalKind::UnsupportedScheme, "there is no signature of a version that counts"));
        }
        if usable.len() > MAX_CANDIDATES {
            let detail = format!("there are more than {MAX_CANDIDATES} signatures");
            return Err(Refusal::new(RefusalKind::MalformedHeader, detail));
        }
        let candidates: Vec<_> =
            usable.into_iter().filter_map(|(algorithm, text)| self.decode(algorithm, text)).collect();
        if candidates.is_empty() {
            return Err(Refusal::new(RefusalKind::MalformedHeader, "the signature is not encoded as it should be"));
        }
        Ok(candidates)
    }

    /// The text in which [`Self::candidates`] finds `signature`. `beside` is the timestamp's key and
    /// text, where it stands there.
    pub(crate) fn write(&self, algorithm: Algorithm, signature: &[u8], beside: Option<(&str, &str)>) -> String {
        let encoded = match algorithm {
            Algorithm::Token => String::from_utf8_lossy(signature).into_owned(),
            Algorithm::Basic => format!("Basic {}", Encoding::Base64.encode(signature)),
            _ => self.encoding.encode(signature),
        };
        match &self.layout {
            Layout::Raw { prefix, .. } => format!("{prefix}{encoded}"),
            Layout::Kv { pair_sep, kv_sep, key, .. } => {
                let time = beside.map(|(key, text)| format!("{key}{kv_sep}{text}{pair_sep}"));
                format!("{}{key}{kv_sep}{encoded}", time.unwrap_or_default())
            }
            Layout::List { version_sep, versions, .. } => {
                let version = versions.iter().find(|(_, known)| **known == algorithm).map(|(name, _)| name.as_str());
                format!("{}{version_sep}{encoded}", version.unwrap_or_default())
            }
        }
    }

    fn decode(&self, algorithm: Algorithm, text: &str) -> Option<Candidate> {
        let bytes = match algorithm {
            Algorithm::Token => text.as_bytes().to_vec(),
            Algorithm::Basic => {
                let (word, credentials) = text.split_once(' ')?;
                if !word.eq_ignore_ascii_case("basic") {
                    return None;
                }
                Encoding::Base64.decode(credentials)?
            }
            _ => self.encoding.decode(text)?,
        };
        Some(Candidate { algorithm, bytes })
    }
}

/// The pairs of `t=…,v1=…`. A space after a separator is tolerated.
fn pairs<'a, 'b>(
    text: &'a str,
    pair_sep: &'b str,
    kv_sep: &'b str,
) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a, 'b> {
    text.split(pair_sep).filter_map(move |pair| pair.trim_start_matches(' ').split_once(kv_sep))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(spec: serde_json::Value, algorithm: Option<Algorithm>) -> SignatureRule {
        serde_json::from_value::<SignatureSpec>(spec).unwrap().compile(algorithm).unwrap()
    }

    fn found(rule: &SignatureRule, text: &str) -> Result<Vec<Vec<u8>>, RefusalKind> {
        let candidates = rule.candidates(text, &rule.algorithms()).map_err(|refusal| refusal.kind)?;
        Ok(candidates.into_iter().map(|candidate| candidate.bytes).collect())
    }

    #[test]
    fn every_value_of_the_signature_key_counts_and_no_other() {
        let spec = serde_json::json!({ "header": "S", "format": "kv", "signature_key": "v1" });
        let rule = rule(spec, Some(Algorithm::HmacSha256));
        assert_eq!(found(&rule, "t=1,v1=0a,v0=0b,v1=0c"), Ok(vec![vec![10], vec![12]]));
        assert_eq!(found(&rule, "t=1, v1=zz,v1=0c"), Ok(vec![vec![12]]));
        assert_eq!(found(&rule, "t=1,v0=0b"), Err(RefusalKind::UnsupportedScheme));
        assert_eq!(found(&rule, "t=1,v1=zz"), Err(RefusalKind::MalformedHeader));
        assert_eq!(found(&rule, &"v1=00,".repeat(9)), Err(RefusalKind::MalformedHeader));
        assert_eq!(rule.beside("t=1,v1=0a", "t"), Some("1"));
    }

    #[test]
    fn a_version_implies_its_algorithm() {
        let spec = serde_json::json!({
            "header": "S", "format": "list", "encoding": "base64",
            "versions": { "v1": "hmac_sha256", "v1a": "ed25519" },
        });
        let rule = rule(spec, None);
        let candidates = rule.candidates("v1,AAE= v1a,AAI= v9,AAM=", &[Algorithm::Ed25519]).unwrap();
        assert_eq!(candidates, [Candidate { algorithm: Algorithm::Ed25519, bytes: vec![0, 2] }]);
    }
}
