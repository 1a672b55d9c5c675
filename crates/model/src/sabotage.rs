//! What can be taken out of the protocol, to see that the model sees.

use std::fmt;

/// One promise that is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    #[default]
    None,
    /// A claim does not ask for the lease of its message.
    NoFence,
    /// Accepting an event writes no outbox row.
    NoOutbox,
    /// The outbox row goes when the broker confirms, not with the insert of the deliveries.
    OutboxUntilConfirm,
    /// An attempt that was begun unread is never claimed.
    NoLateClaim,
    /// The claim of an attempt that was begun unread is tried once, even if the database is away just then.
    ClaimOnce,
    /// A first attempt's message that came back claims at once.
    NoPatience,
    /// It waits for 2 s, as if nobody had to wait for a turn.
    ShortPatience,
    /// A first attempt's message that came back waits, but not for a database that was away meanwhile.
    PatienceWithoutDatabase,
    /// A message that came back does not wait for the handler that has its attempt in the same worker. No promise breaks:
    /// its patience is enough.
    NobodyWaitsInHand,
    /// Lost messages are replaced as soon as the database is back, before workers have recorded what they sent.
    RecordersLast,
    /// Nobody replaces lost messages.
    NoRenewal,
    /// A worker forgets what it sent when the database is away.
    ForgetfulRecorder,
    /// Nobody writes the dead letter whose message was lost.
    NoJanitor,
    /// A worker acknowledges when it sends, not when the record knows. No promise breaks, since leases run out.
    AckBeforeRecord,
}

impl Sabotage {
    pub const ALL: [Self; 15] = [
        Self::None,
        Self::NoFence,
        Self::NoOutbox,
        Self::OutboxUntilConfirm,
        Self::NoLateClaim,
        Self::ClaimOnce,
        Self::NoPatience,
        Self::ShortPatience,
        Self::PatienceWithoutDatabase,
        Self::NobodyWaitsInHand,
        Self::RecordersLast,
        Self::NoRenewal,
        Self::ForgetfulRecorder,
        Self::NoJanitor,
        Self::AckBeforeRecord,
    ];

    /// As the command line spells it.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }

    pub fn parse(text: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|sabotage| sabotage.name() == text).ok_or_else(|| Unknown(text.to_owned()))
    }
}

/// A sabotage that there is not.
#[derive(Clone, Debug)]
pub struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = Sabotage::ALL.iter().map(|sabotage| sabotage.name()).collect();
        write!(f, "`{}` is none of {}", self.0, names.join(", "))
    }
}

impl std::error::Error for Unknown {}
