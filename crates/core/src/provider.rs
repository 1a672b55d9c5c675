//! Who sends: the providers whose requests Posthorn can verify.

use std::fmt;
use std::str::FromStr;

/// A kind of sender. It decides how a source's requests are verified and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    Stripe,
    Twilio,
    Ses,
    Telnyx,
    TelnyxHmac,
    Close,
    GooglePubsub,
    Github,
    Shopify,
    Slack,
    StandardWebhooks,
    Internal,
    Generic,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a provider")]
pub struct UnknownProvider(pub String);

impl Provider {
    pub const ALL: [Self; 13] = [
        Self::Stripe,
        Self::Twilio,
        Self::Ses,
        Self::Telnyx,
        Self::TelnyxHmac,
        Self::Close,
        Self::GooglePubsub,
        Self::Github,
        Self::Shopify,
        Self::Slack,
        Self::StandardWebhooks,
        Self::Internal,
        Self::Generic,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Twilio => "twilio",
            Self::Ses => "ses",
            Self::Telnyx => "telnyx",
            Self::TelnyxHmac => "telnyx_hmac",
            Self::Close => "close",
            Self::GooglePubsub => "google_pubsub",
            Self::Github => "github",
            Self::Shopify => "shopify",
            Self::Slack => "slack",
            Self::StandardWebhooks => "standard_webhooks",
            Self::Internal => "internal",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == text).ok_or_else(|| UnknownProvider(text.to_owned()))
    }
}
