//! Everything that can happen. Numbers choose among the messages, hands and deliveries that there are.

use crate::moment::Moment;

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    Failed,
    /// With a status that the subscription calls permanent.
    Refused,
}

/// What becomes of a message that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    Done,
    /// The broker surely did not take it.
    Refused,
    /// Whoever was to publish it died before it did.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time passes until something is due.
    Pass,
    /// Some time passes.
    PassSome(Moment),

    /// The gateway publishes what it has just accepted.
    HandOver,
    /// A relay takes the outbox row, which is due, and publishes it; or dies in between.
    Relay(Publication),

    /// A dispatcher gets the event's message.
    Fetch,
    /// It makes the deliveries, queued or held.
    Insert {
        fanning: u8,
        held: bool,
    },
    /// It publishes those that are queued, if there are any.
    Publish {
        fanning: u8,
        publication: Publication,
    },
    AcknowledgeEvent {
        fanning: u8,
    },
    /// The scheduler releases what is held and due.
    Release {
        delivery: u8,
        publication: Publication,
    },
    /// The scheduler replaces a message that is lost.
    Renew {
        delivery: u8,
        publication: Publication,
    },
    /// The clerk writes a dead letter, and acknowledges its message unless it dies first.
    File {
        dead: u8,
        dies: bool,
    },
    /// The janitor writes the dead letter whose message was lost.
    Tidy {
        delivery: u8,
    },

    /// A worker gets a message.
    Deliver {
        worker: u8,
        message: u8,
    },
    /// A message's turn: it is sent unread, or its row is claimed, or it is dropped.
    Begin {
        worker: u8,
        hand: u8,
    },
    PutBack {
        worker: u8,
        hand: u8,
    },
    /// The POST of what was claimed.
    Post {
        worker: u8,
        hand: u8,
    },
    ClaimLate {
        worker: u8,
        hand: u8,
    },
    Answer {
        worker: u8,
        hand: u8,
        outcome: Outcome,
    },
    Record {
        worker: u8,
        hand: u8,
    },
    Settle {
        worker: u8,
        hand: u8,
    },

    SetGoing {
        delivery: u8,
    },
    Cancel {
        delivery: u8,
    },

    GatewayDies,
    DispatcherDies {
        fanning: u8,
    },
    WorkerDies {
        worker: u8,
    },
    /// A worker loses its connection to the broker: its messages go back, its attempts go on.
    Disconnect {
        worker: u8,
    },
    Freeze {
        worker: u8,
    },
    Thaw {
        worker: u8,
    },
    LoseEvent,
    Lose {
        message: u8,
    },
    LoseDead {
        dead: u8,
    },
    /// The broker loses everything.
    LoseAll,
    /// A message has gone round too often.
    OverLimit {
        message: u8,
    },
    DatabaseAway,
    DatabaseBack,
}

impl Step {
    /// Whether it is one of the faults that are counted; a message for which there is no room is one, too.
    pub fn is_fault(self) -> bool {
        use Publication::{Never, Refused};
        match self {
            Self::Relay(publication)
            | Self::Publish { publication, .. }
            | Self::Release { publication, .. }
            | Self::Renew { publication, .. } => matches!(publication, Never | Refused),
            Self::File { dies, .. } => dies,
            Self::GatewayDies
            | Self::DispatcherDies { .. }
            | Self::WorkerDies { .. }
            | Self::Disconnect { .. }
            | Self::Freeze { .. }
            | Self::LoseEvent
            | Self::Lose { .. }
            | Self::LoseDead { .. }
            | Self::LoseAll
            | Self::OverLimit { .. }
            | Self::PutBack { .. }
            | Self::DatabaseAway => true,
            _ => false,
        }
    }

    /// Whether a person does it.
    pub fn is_by_hand(self) -> bool {
        matches!(self, Self::SetGoing { .. } | Self::Cancel { .. })
    }

    /// The worker and the hand that it is about.
    pub fn hand(self) -> Option<(u8, u8)> {
        match self {
            Self::Begin { worker, hand }
            | Self::PutBack { worker, hand }
            | Self::Post { worker, hand }
            | Self::ClaimLate { worker, hand }
            | Self::Answer { worker, hand, .. }
            | Self::Record { worker, hand }
            | Self::Settle { worker, hand } => Some((worker, hand)),
            _ => None,
        }
    }

    /// The same step about the message, hand or fan-out that `other` names.
    pub fn with_numbers_of(mut self, other: Self) -> Self {
        let (numbers, theirs) = (self.number(), { other }.number().map(|number| *number));
        if let (Some(number), Some(theirs)) = (numbers, theirs) {
            *number = theirs;
        }
        self
    }

    /// Which message, hand or fan-out it names.
    fn number(&mut self) -> Option<&mut u8> {
        match self {
            Self::Begin { hand, .. }
            | Self::PutBack { hand, .. }
            | Self::Post { hand, .. }
            | Self::ClaimLate { hand, .. }
            | Self::Answer { hand, .. }
            | Self::Record { hand, .. }
            | Self::Settle { hand, .. } => Some(hand),
            Self::Deliver { message, .. } | Self::Lose { message } | Self::OverLimit { message } => Some(message),
            Self::File { dead, .. } | Self::LoseDead { dead } => Some(dead),
            Self::Insert { fanning, .. }
            | Self::Publish { fanning, .. }
            | Self::AcknowledgeEvent { fanning }
            | Self::DispatcherDies { fanning } => Some(fanning),
            _ => None,
        }
    }
}
