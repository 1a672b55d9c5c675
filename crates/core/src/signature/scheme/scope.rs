//! What a scheme can see of one request, and the values it finds there.

use std::borrow::Cow;

use jiff::Timestamp;
use ring::digest;

use crate::body::document::Document;
use crate::body::form;
use crate::request::RawRequest;
use crate::signature::public_url::PublicUrl;
use crate::signature::scheme::source::{Choice, DedupParts, Source};
use crate::signature::scheme::template::{Part, Template};

/// One request, or one item of it. What is not known yet is `None`, and finds nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) request: &'a RawRequest,
    pub(crate) public_url: Option<&'a PublicUrl>,
    /// The body as a document; that of the item, in a batch.
    pub(crate) document: Option<&'a Document<'a>>,
    /// The bytes of the body; those of the item, in a batch.
    pub(crate) bytes: &'a [u8],
    pub(crate) timestamp: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    pub(crate) event_type: Option<&'a str>,
    /// When the request came.
    pub(crate) now: Option<Timestamp>,
}

impl<'a> Scope<'a> {
    pub(crate) fn of(request: &'a RawRequest) -> Self {
        Self {
            request,
            public_url: None,
            document: None,
            bytes: &request.body,
            timestamp: None,
            id: None,
            event_type: None,
            now: None,
        }
    }

    /// The bytes of `part`, or `None` if the request has none such.
    pub(crate) fn part(&self, part: &Part) -> Option<Cow<'a, [u8]>> {
        let owned = |text: String| Cow::Owned(text.into_bytes());
        match part {
            Part::Literal(text) => Some(owned(text.clone())),
            Part::Body => Some(Cow::Borrowed(self.bytes)),
            Part::BodySha256 => Some(owned(sha256_hex(self.bytes))),
            Part::Timestamp => self.timestamp.map(|text| Cow::Borrowed(text.as_bytes())),
            Part::Id => self.id.map(|text| Cow::Borrowed(text.as_bytes())),
            Part::Type => self.event_type.map(|text| Cow::Borrowed(text.as_bytes())),
            Part::Minute => self.now.map(|now| owned(now.as_second().div_euclid(60).to_string())),
            Part::Method => Some(Cow::Borrowed(self.request.method.as_bytes())),
            Part::Url => self.public_url.map(|url| owned(url.for_target(&self.request.target))),
            Part::Path => self.request.target.split('?').next().map(|path| Cow::Borrowed(path.as_bytes())),
            Part::Header(name) => self.request.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes())),
            Part::Query(name) => self.query(name).map(owned),
            Part::Json(path) => self.document?.text(path).map(owned),
        }
    }

    /// The text that `source` gives, which may be empty.
    pub(crate) fn source(&self, source: &Source) -> Option<String> {
        match source {
            Source::Header(names) => names.iter().find_map(|name| self.request.headers.get(name)).map(str::to_owned),
            Source::Query(name) => self.query(name),
            Source::Json(path) => self.document?.text(path),
            Source::Template(template) => self.template(template),
        }
    }

    /// The first text that is not empty, and that a name can be.
    pub(crate) fn choice(&self, choice: &Choice) -> Option<String> {
        choice.sources().iter().find_map(|source| self.source(source).filter(|text| is_name(text)))
    }

    /// The texts of all parts, or `None` if one is missing.
    pub(crate) fn dedup_parts(&self, parts: &DedupParts) -> Option<Vec<String>> {
        let texts: Vec<_> = parts.parts().iter().map(|choice| self.choice(choice)).collect::<Option<_>>()?;
        (!texts.is_empty()).then_some(texts)
    }

    fn template(&self, template: &Template) -> Option<String> {
        let pieces: Vec<_> = template.parts().iter().map(|part| self.part(part)).collect::<Option<_>>()?;
        String::from_utf8(pieces.concat()).ok()
    }

    fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.request.target.split_once('?')?;
        form::get(&form::fields(query.as_bytes()), name)
    }
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// Whether a text is kept as a name: PostgreSQL takes no NUL in a text, and an id is no document.
fn is_name(text: &str) -> bool {
    const MAX_BYTES: usize = 1024;
    !text.is_empty() && text.len() <= MAX_BYTES && !text.contains('\0')
}
