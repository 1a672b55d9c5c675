//! What Posthorn tells tenants about itself, as events like any other.

use serde_json::{Value, json};

use crate::delivery::DeadReason;
use crate::event_type::EventType;
use crate::id::{DeliveryId, EventId, SubscriptionId};
use crate::time::Rfc3339;

/// Something a tenant may want to hear of. Never about the delivery of such an event: that would not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A subscription has failed for long, and is disabled if it goes on failing.
    SubscriptionWarning {
        subscription_id: SubscriptionId,
        failing_since: Rfc3339,
        percent: u8,
        disables_at: Rfc3339,
    },
    SubscriptionDisabled {
        subscription_id: SubscriptionId,
        reason: &'static str,
        recover_since: Rfc3339,
    },
    /// A delivery died.
    DeliveryExhausted(Parcel, DeadReason),
    /// A delivery that had died arrived after all.
    DeliveryRecovered(Parcel),
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SubscriptionWarning,
    SubscriptionDisabled,
    DeliveryExhausted,
    DeliveryRecovered,
}

impl Kind {
    pub fn event_type(self) -> EventType {
        EventType::operational(match self {
            Self::SubscriptionWarning => "subscription.warning",
            Self::SubscriptionDisabled => "subscription.disabled",
            Self::DeliveryExhausted => "delivery.exhausted",
            Self::DeliveryRecovered => "delivery.recovered",
        })
    }
}

/// A delivery, as a notice names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    pub delivery_id: DeliveryId,
    pub generation: u32,
    pub subscription_id: SubscriptionId,
    pub event_id: EventId,
    pub event_type: EventType,
}

impl Notice {
    pub fn kind(&self) -> Kind {
        match self {
            Self::SubscriptionWarning { .. } => Kind::SubscriptionWarning,
            Self::SubscriptionDisabled { .. } => Kind::SubscriptionDisabled,
            Self::DeliveryExhausted(..) => Kind::DeliveryExhausted,
            Self::DeliveryRecovered(..) => Kind::DeliveryRecovered,
        }
    }

    /// What is told, without a tenant's payload.
    pub fn data(&self) -> Value {
        match self {
            Self::SubscriptionWarning { subscription_id, failing_since, percent, disables_at } => json!({
                "subscription_id": subscription_id,
                "failing_since": failing_since,
                "percent": percent,
                "disables_at": disables_at,
            }),
            Self::SubscriptionDisabled { subscription_id, reason, recover_since } => json!({
                "subscription_id": subscription_id,
                "reason": reason,
                "recover_since": recover_since,
            }),
            Self::DeliveryExhausted(parcel, reason) => {
                let mut data = parcel.data();
                data["reason"] = json!(reason);
                data
            }
            Self::DeliveryRecovered(parcel) => parcel.data(),
        }
    }

    /// What makes it one notice and no other: told twice, it is one event.
    pub fn identity(&self) -> String {
        let about = match self {
            Self::SubscriptionWarning { subscription_id, failing_since, percent, .. } => {
                format!("{subscription_id}/{failing_since}/{percent}")
            }
            Self::SubscriptionDisabled { subscription_id, recover_since, .. } => {
                format!("{subscription_id}/{recover_since}")
            }
            Self::DeliveryExhausted(parcel, _) | Self::DeliveryRecovered(parcel) => {
                format!("{}/{}", parcel.delivery_id, parcel.generation)
            }
        };
        format!("{}/{about}", self.kind().event_type())
    }
}

impl Parcel {
    fn data(&self) -> Value {
        json!({
            "subscription_id": self.subscription_id,
            "delivery_id": self.delivery_id,
            "event_id": self.event_id,
            "event_type": self.event_type.as_str(),
        })
    }
}
