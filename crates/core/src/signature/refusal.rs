//! Why a request was not accepted.

/// A request that was not accepted, for the list of rejected requests and for the answer.
///
/// `detail` is for the source's owner: it names headers and fields, never a secret and never the
/// signature that would have been right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub detail: String,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// What the answer tells the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// 401: not shown to be genuine, or stale.
    Unauthenticated,
    /// 400: cannot be read.
    Malformed,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $label:literal $class:ident,)*) => {
        /// The reason of a refusal, as listed with rejected requests.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RefusalKind { $($(#[$doc])* $kind,)* }

        impl RefusalKind {
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The label in the API, in logs and in test vectors.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $label,)* }
            }

            pub fn class(self) -> RefusalClass {
                match self { $(Self::$kind => RefusalClass::$class,)* }
            }
        }
    };
}

kinds! {
    /// A header (or field) that carries the signature, or that is signed, is absent.
    MissingHeader = "missing_header" Unauthenticated,
    MalformedHeader = "malformed_header" Unauthenticated,
    /// There are signatures, none of a version that counts.
    UnsupportedScheme = "unsupported_scheme" Unauthenticated,
    SignatureMismatch = "signature_mismatch" Unauthenticated,
    TimestampTooOld = "timestamp_too_old" Unauthenticated,
    TimestampTooNew = "timestamp_too_new" Unauthenticated,
    /// The signature holds for a digest, and the body has another.
    BodyHashMismatch = "body_hash_mismatch" Unauthenticated,
    UnsupportedVersion = "unsupported_version" Unauthenticated,
    UntrustedCertUrl = "untrusted_cert_url" Unauthenticated,
    UntrustedSubscribeUrl = "untrusted_subscribe_url" Unauthenticated,
    /// Genuine, of a topic that nobody allowed.
    TopicNotAllowed = "topic_not_allowed" Unauthenticated,
    /// Sent in a form that carries no signature at all.
    Unverifiable = "unverifiable" Unauthenticated,
    UnsupportedAlg = "unsupported_alg" Unauthenticated,
    /// The token names a key that the key set does not hold. The set may have been fetched before
    /// the key existed: see [`Verifier::key_set_url`](super::Verifier::key_set_url).
    UnknownKey = "unknown_key" Unauthenticated,
    TokenMalformed = "token_malformed" Unauthenticated,
    TokenExpired = "token_expired" Unauthenticated,
    TokenNotYetValid = "token_not_yet_valid" Unauthenticated,
    WrongAudience = "wrong_audience" Unauthenticated,
    WrongIssuer = "wrong_issuer" Unauthenticated,
    WrongEmail = "wrong_email" Unauthenticated,
    InvalidConfig = "invalid_config" Unauthenticated,
    /// The body is not what this provider sends.
    MalformedBody = "malformed_body" Malformed,
    /// Genuine and readable, but nothing in it can name an event.
    MissingEventType = "missing_event_type" Malformed,
}
